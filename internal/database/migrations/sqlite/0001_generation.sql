-- What changed: a row per kind, raised in the same transaction as the change (see DB.Watch).

-- +goose Up
CREATE TABLE generation (
    kind TEXT NOT NULL PRIMARY KEY,
    n    BIGINT NOT NULL
) WITHOUT ROWID;
