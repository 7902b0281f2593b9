-- Who may enter the page. Only hashes of secrets are here: a copy of this file opens nothing.

CREATE TABLE invites (
    token_sha256 TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    owner        INTEGER NOT NULL CHECK (owner IN (0, 1)),
    UNIQUE (name, owner)                -- a fresh link replaces the unused one
);

CREATE TABLE sessions (
    secret_sha256 TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    owner         INTEGER NOT NULL CHECK (owner IN (0, 1)),
    created_at    REAL NOT NULL         -- seconds since 1970
);
