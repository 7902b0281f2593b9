-- From version 1: one presentation per pair becomes one per pair and labeler; what nobody had voted on is asked anew.

CREATE TEMP TABLE old_presentations AS SELECT * FROM presentations;
CREATE TEMP TABLE old_judgements AS SELECT * FROM judgements;
DROP VIEW votes;
DROP TABLE judgements;
DROP TABLE presentations;
ALTER TABLE responses ADD COLUMN max_new_tokens INTEGER;
UPDATE meta SET value = '2' WHERE key = 'schema_version';
