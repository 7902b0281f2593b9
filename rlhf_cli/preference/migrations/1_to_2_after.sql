-- The second half of the migration from version 1, once the tables of version 2 exist.

-- Version 1 did not say who was a person; a rule went by the name of its function, `module:function`.
INSERT INTO labelers (name, kind, detail)
SELECT DISTINCT labeler, CASE WHEN instr(labeler, ':') THEN 'rule' ELSE 'human' END, '{}'
FROM temp.old_judgements;

INSERT INTO presentations (pair_id, labeler, first, created_at)
SELECT p.pair_id, j.labeler, p.first, min(j.created_at)
FROM temp.old_judgements AS j JOIN temp.old_presentations AS p ON p.id = j.presentation_id
GROUP BY p.pair_id, j.labeler
ORDER BY min(j.id);

-- A chain is one person's: what another said afterwards starts a chain of its own.
INSERT INTO judgements (id, key, presentation_id, winner, strength, reason, tags, seconds, raw, supersedes, created_at)
SELECT j.id, j.key, p.id, j.winner, 0, j.reason, '[]', j.seconds, '',
       lag(j.id) OVER (PARTITION BY p.id ORDER BY j.id), j.created_at
FROM temp.old_judgements AS j
JOIN temp.old_presentations AS old ON old.id = j.presentation_id
JOIN presentations AS p ON p.pair_id = old.pair_id AND p.labeler = j.labeler
ORDER BY j.id;

DROP TABLE temp.old_judgements;
DROP TABLE temp.old_presentations;
