-- The store of one collection, version 1. Rows are only ever added; a change of mind is a new row.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE prompts (
    id      INTEGER PRIMARY KEY,        -- 1, 2, ... in reading order
    content TEXT NOT NULL,              -- JSON: a string, or a list of {"role", "content"}
    origin  TEXT NOT NULL,              -- "prompts.jsonl:12"
    extra   TEXT NOT NULL               -- JSON object: the row's other columns
);

CREATE TABLE responses (
    id            INTEGER PRIMARY KEY,
    prompt_id     INTEGER NOT NULL REFERENCES prompts (id),
    candidate     INTEGER NOT NULL,     -- index into the configured candidates
    sample        INTEGER NOT NULL,     -- which answer of this candidate to this prompt
    model         TEXT NOT NULL,
    model_digest  TEXT NOT NULL,
    temperature   REAL NOT NULL,
    top_p         REAL NOT NULL,
    seed          INTEGER NOT NULL,
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length')),
    text          TEXT NOT NULL,        -- the answer alone: no prompt, no closing EOS
    created_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (prompt_id, candidate, sample)
);

CREATE TABLE pairs (
    id         INTEGER PRIMARY KEY,
    prompt_id  INTEGER NOT NULL REFERENCES prompts (id),
    response_1 INTEGER NOT NULL REFERENCES responses (id),
    response_2 INTEGER NOT NULL REFERENCES responses (id),
    identical  INTEGER NOT NULL CHECK (identical IN (0, 1)),   -- equal but for white space: never asked
    CHECK (response_1 <> response_2),
    UNIQUE (response_1, response_2)
);

CREATE TABLE presentations (
    id      INTEGER PRIMARY KEY,
    pair_id INTEGER NOT NULL UNIQUE REFERENCES pairs (id),
    first   INTEGER NOT NULL CHECK (first IN (1, 2))           -- which response is shown first
);

CREATE TABLE judgements (
    id              INTEGER PRIMARY KEY,
    key             TEXT NOT NULL UNIQUE,                      -- idempotency: one row however often it is sent
    presentation_id INTEGER NOT NULL REFERENCES presentations (id),
    winner          TEXT NOT NULL CHECK (winner IN ('1', '2', 'tie', 'both_bad', 'skip', 'undone')),
    labeler         TEXT NOT NULL,
    reason          TEXT NOT NULL,
    seconds         REAL NOT NULL,
    supersedes      INTEGER UNIQUE REFERENCES judgements (id), -- a vote is replaced at most once
    created_at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE INDEX judgements_of ON judgements (presentation_id);

-- One chain of judgements for each presentation: a second vote must supersede the first.
CREATE UNIQUE INDEX one_chain ON judgements (presentation_id) WHERE supersedes IS NULL;

CREATE TRIGGER judgements_keep_update BEFORE UPDATE ON judgements
BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER judgements_keep_delete BEFORE DELETE ON judgements
BEGIN SELECT RAISE(ABORT, 'judgements are append-only'); END;
CREATE TRIGGER presentations_keep_update BEFORE UPDATE ON presentations
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;
CREATE TRIGGER presentations_keep_delete BEFORE DELETE ON presentations
BEGIN SELECT RAISE(ABORT, 'presentations are append-only'); END;
CREATE TRIGGER responses_keep_update BEFORE UPDATE ON responses
BEGIN SELECT RAISE(ABORT, 'responses are append-only'); END;
CREATE TRIGGER responses_keep_delete BEFORE DELETE ON responses
BEGIN SELECT RAISE(ABORT, 'responses are append-only'); END;

-- The last word on each presentation, absent while nothing is decided.
CREATE VIEW votes AS
SELECT j.*
FROM judgements AS j
WHERE j.winner <> 'undone'
  AND NOT EXISTS (SELECT 1 FROM judgements AS later WHERE later.supersedes = j.id);

INSERT INTO meta (key, value) VALUES ('schema_version', '1');
