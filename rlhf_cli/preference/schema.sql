-- The store of one collection, version 2. What was said or shown is only ever added; a change of mind is a new row.
--
-- Everything here is created where it is missing, so a table that is added later needs no new version.

CREATE TABLE IF NOT EXISTS meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- What is compared -----------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS prompts (
    id      INTEGER PRIMARY KEY,        -- 1, 2, ... in reading order
    content TEXT NOT NULL,              -- JSON: a string, or a list of {"role", "content"}
    origin  TEXT NOT NULL,              -- "prompts.jsonl:12"
    extra   TEXT NOT NULL               -- JSON object: the row's other columns
);

CREATE TABLE IF NOT EXISTS responses (
    id             INTEGER PRIMARY KEY,
    prompt_id      INTEGER NOT NULL REFERENCES prompts (id),
    candidate      INTEGER NOT NULL,    -- index into the configured candidates
    sample         INTEGER NOT NULL,    -- which answer of this candidate to this prompt
    model          TEXT NOT NULL,
    model_digest   TEXT NOT NULL,       -- of the weights
    temperature    REAL NOT NULL,
    top_p          REAL NOT NULL,
    seed           INTEGER NOT NULL,
    finish_reason  TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length')),
    text           TEXT NOT NULL,       -- the answer alone: no prompt, no closing EOS
    max_new_tokens INTEGER,             -- NULL where it was not recorded
    created_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (prompt_id, candidate, sample)
);

CREATE TABLE IF NOT EXISTS pairs (
    id         INTEGER PRIMARY KEY,
    prompt_id  INTEGER NOT NULL REFERENCES prompts (id),
    response_1 INTEGER NOT NULL REFERENCES responses (id),
    response_2 INTEGER NOT NULL REFERENCES responses (id),
    identical  INTEGER NOT NULL CHECK (identical IN (0, 1)),   -- equal but for white space: never asked
    CHECK (response_1 <> response_2),
    UNIQUE (response_1, response_2)
);

-- Who judges, what each was shown, what each said ----------------------------------------------------------------

CREATE TABLE IF NOT EXISTS labelers (
    name       TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('human', 'rule', 'judge', 'reward', 'import')),
    detail     TEXT NOT NULL,           -- JSON object: what else decides the votes (model, hash of the prompt)
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TABLE IF NOT EXISTS presentations (
    id         INTEGER PRIMARY KEY,
    pair_id    INTEGER NOT NULL REFERENCES pairs (id),
    labeler    TEXT NOT NULL REFERENCES labelers (name),
    first      INTEGER NOT NULL CHECK (first IN (0, 1, 2)),    -- which response is shown first; 0: asked both ways
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (pair_id, labeler)
);

CREATE INDEX IF NOT EXISTS presentations_to ON presentations (labeler, pair_id);

CREATE TABLE IF NOT EXISTS judgements (
    id               INTEGER PRIMARY KEY,
    key              TEXT NOT NULL UNIQUE,                      -- idempotency: one row however often it is sent
    presentation_id  INTEGER NOT NULL REFERENCES presentations (id),
    winner           TEXT NOT NULL CHECK (winner IN ('1', '2', 'tie', 'both_bad', 'skip', 'error', 'undone')),
    strength         INTEGER NOT NULL CHECK (strength BETWEEN 0 AND 3 AND (strength = 0 OR winner IN ('1', '2'))),
    reason           TEXT NOT NULL,
    tags             TEXT NOT NULL,                             -- JSON array of strings
    p_first_response REAL CHECK (p_first_response BETWEEN 0 AND 1),   -- P(response 1 is better), from machines
    seconds          REAL NOT NULL,
    raw              TEXT NOT NULL,                             -- what a machine said, or why it failed
    supersedes       INTEGER UNIQUE REFERENCES judgements (id), -- a vote is replaced at most once
    created_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE INDEX IF NOT EXISTS judgements_of ON judgements (presentation_id);

-- One chain of judgements for each presentation: a second vote must supersede the first.
CREATE UNIQUE INDEX IF NOT EXISTS one_chain ON judgements (presentation_id) WHERE supersedes IS NULL;

CREATE TRIGGER IF NOT EXISTS judgements_keep_update BEFORE UPDATE ON judgements
BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS judgements_keep_delete BEFORE DELETE ON judgements
BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS presentations_keep_update BEFORE UPDATE ON presentations
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;
CREATE TRIGGER IF NOT EXISTS presentations_keep_delete BEFORE DELETE ON presentations
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;
CREATE TRIGGER IF NOT EXISTS labelers_keep_update BEFORE UPDATE ON labelers
BEGIN SELECT RAISE(ABORT, 'labelers are append-only'); END;
CREATE TRIGGER IF NOT EXISTS labelers_keep_delete BEFORE DELETE ON labelers
BEGIN SELECT RAISE(ABORT, 'labelers are append-only'); END;
CREATE TRIGGER IF NOT EXISTS responses_keep_update BEFORE UPDATE ON responses
BEGIN SELECT RAISE(ABORT, 'responses are append-only'); END;
CREATE TRIGGER IF NOT EXISTS responses_keep_delete BEFORE DELETE ON responses
BEGIN SELECT RAISE(ABORT, 'responses are append-only'); END;

-- The last word on each presentation, absent while nothing is decided.
CREATE VIEW IF NOT EXISTS votes AS
SELECT j.*
FROM judgements AS j
WHERE j.winner <> 'undone'
  AND NOT EXISTS (SELECT 1 FROM judgements AS later WHERE later.supersedes = j.id);

-- How good a reward model finds single answers --------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS scores (
    response_id INTEGER NOT NULL REFERENCES responses (id),
    labeler     TEXT NOT NULL REFERENCES labelers (name),
    score       REAL NOT NULL,          -- raw: differences are log-odds
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (response_id, labeler)
);

CREATE TRIGGER IF NOT EXISTS scores_keep_update BEFORE UPDATE ON scores
BEGIN SELECT RAISE(ABORT, 'scores are append-only'); END;
CREATE TRIGGER IF NOT EXISTS scores_keep_delete BEFORE DELETE ON scores
BEGIN SELECT RAISE(ABORT, 'scores are append-only'); END;

-- The desk: who holds which question, and how many people are to answer it ---------------------------------------

-- Handed out and not yet answered; the newest of a person has the largest id.
CREATE TABLE IF NOT EXISTS leases (
    id              INTEGER PRIMARY KEY,
    presentation_id INTEGER NOT NULL UNIQUE REFERENCES presentations (id),
    expires_at      REAL NOT NULL       -- Unix time
);

-- Counts that follow from the rows above, kept so that nobody waits for a recount.
CREATE TABLE IF NOT EXISTS demand (
    pair_id INTEGER PRIMARY KEY REFERENCES pairs (id),
    wanted  INTEGER NOT NULL,           -- votes of different people
    given   INTEGER NOT NULL
);

CREATE INDEX IF NOT EXISTS open_demand ON demand (pair_id) WHERE given < wanted;

CREATE TABLE IF NOT EXISTS demand_total (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    done     INTEGER NOT NULL,          -- votes given, those beyond the number wanted left out
    wanted   INTEGER NOT NULL
);

CREATE TRIGGER IF NOT EXISTS demand_is_summed AFTER UPDATE OF given ON demand
BEGIN
    UPDATE demand_total SET done = done + min(NEW.given, NEW.wanted) - min(OLD.given, OLD.wanted);
END;

CREATE TABLE IF NOT EXISTS tallies (
    labeler   TEXT PRIMARY KEY REFERENCES labelers (name),
    num_votes INTEGER NOT NULL          -- in force
);

CREATE TRIGGER IF NOT EXISTS judgements_are_counted AFTER INSERT ON judgements
BEGIN
    INSERT INTO tallies (labeler, num_votes)
    SELECT labeler,
           (NEW.winner <> 'undone')
           - coalesce((SELECT winner <> 'undone' FROM judgements WHERE id = NEW.supersedes), 0)
    FROM presentations WHERE id = NEW.presentation_id
    ON CONFLICT (labeler) DO UPDATE SET num_votes = num_votes + excluded.num_votes;

    UPDATE demand
    SET given = given + (NEW.winner <> 'undone')
                - coalesce((SELECT winner <> 'undone' FROM judgements WHERE id = NEW.supersedes), 0)
    WHERE pair_id = (SELECT p.pair_id FROM presentations AS p JOIN labelers ON name = p.labeler
                     WHERE p.id = NEW.presentation_id AND kind = 'human');
END;

-- Every vote in force with its pair and its voter. Those beyond the number wanted are surplus: kept, not counted.
CREATE VIEW IF NOT EXISTS ballots AS
SELECT v.*, p.pair_id, p.labeler, p.first, l.kind,
       l.kind = 'human' AND d.wanted IS NOT NULL
       AND row_number() OVER (PARTITION BY p.pair_id, l.kind = 'human' ORDER BY v.id) > d.wanted AS surplus
FROM votes AS v
JOIN presentations AS p ON p.id = v.presentation_id
JOIN labelers AS l ON l.name = p.labeler
LEFT JOIN demand AS d ON d.pair_id = p.pair_id;

-- Replies of judges and critics, each paid for once -------------------------------------------------------------

CREATE TABLE IF NOT EXISTS calls (
    id         INTEGER PRIMARY KEY,
    cache_key  TEXT NOT NULL UNIQUE,    -- sha256 of the model's identity, messages, parameters and seed
    model      TEXT NOT NULL,
    reply      TEXT NOT NULL,           -- JSON: text, label probabilities, tokens, seconds
    attempts   INTEGER NOT NULL,        -- requests sent until there was a reply
    tokens     INTEGER NOT NULL,        -- both ways
    cost       REAL NOT NULL,           -- at the configured prices
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TRIGGER IF NOT EXISTS calls_keep_update BEFORE UPDATE ON calls
BEGIN SELECT RAISE(ABORT, 'calls are append-only'); END;
CREATE TRIGGER IF NOT EXISTS calls_keep_delete BEFORE DELETE ON calls
BEGIN SELECT RAISE(ABORT, 'calls are append-only'); END;

INSERT OR IGNORE INTO meta (key, value) VALUES ('schema_version', '2');

-- Critiques and revisions under principles ----------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS cai_steps (
    id         INTEGER PRIMARY KEY,
    prompt_id  INTEGER NOT NULL REFERENCES prompts (id),
    number     INTEGER NOT NULL,        -- round, from 1
    principle  TEXT NOT NULL,
    critique   TEXT NOT NULL,
    revision   TEXT NOT NULL,           -- as the model wrote it, or why it failed
    outcome    TEXT NOT NULL CHECK (outcome IN ('revised', 'unchanged', 'empty', 'cut', 'leaked', 'failed')),
    answer     TEXT NOT NULL,           -- the one that stands after this round
    model      TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (prompt_id, number)
);

CREATE TRIGGER IF NOT EXISTS cai_steps_keep_update BEFORE UPDATE ON cai_steps
BEGIN SELECT RAISE(ABORT, 'steps are append-only'); END;
CREATE TRIGGER IF NOT EXISTS cai_steps_keep_delete BEFORE DELETE ON cai_steps
BEGIN SELECT RAISE(ABORT, 'steps are append-only'); END;

-- Answers that people write ---------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS demonstrations (
    id         INTEGER PRIMARY KEY,
    key        TEXT NOT NULL UNIQUE,    -- idempotency: one row however often it is sent
    prompt_id  INTEGER NOT NULL REFERENCES prompts (id),
    labeler    TEXT NOT NULL REFERENCES labelers (name),
    outcome    TEXT NOT NULL CHECK (outcome IN ('written', 'skip', 'undone')),
    text       TEXT NOT NULL,
    seconds    REAL NOT NULL,
    supersedes INTEGER UNIQUE REFERENCES demonstrations (id),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- One chain for each person and prompt.
CREATE UNIQUE INDEX IF NOT EXISTS one_text ON demonstrations (prompt_id, labeler) WHERE supersedes IS NULL;

CREATE TRIGGER IF NOT EXISTS demonstrations_keep_update BEFORE UPDATE ON demonstrations
BEGIN SELECT RAISE(ABORT, 'demonstrations are append-only'); END;
CREATE TRIGGER IF NOT EXISTS demonstrations_keep_delete BEFORE DELETE ON demonstrations
BEGIN SELECT RAISE(ABORT, 'demonstrations are append-only'); END;

-- The last word of each person on each prompt, absent while there is none.
CREATE VIEW IF NOT EXISTS writings AS
SELECT d.*
FROM demonstrations AS d
WHERE d.outcome <> 'undone'
  AND NOT EXISTS (SELECT 1 FROM demonstrations AS later WHERE later.supersedes = d.id);

-- Prompts that somebody is writing on; the newest of a person has the largest id.
CREATE TABLE IF NOT EXISTS writing_leases (
    id         INTEGER PRIMARY KEY,
    prompt_id  INTEGER NOT NULL UNIQUE REFERENCES prompts (id),
    labeler    TEXT NOT NULL REFERENCES labelers (name),
    expires_at REAL NOT NULL            -- Unix time
);
