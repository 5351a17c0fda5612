-- What happened to each letter; package internal/maillog says how it is used.

-- +goose Up
CREATE TABLE ledger (
    id           INTEGER PRIMARY KEY,
    at           BIGINT NOT NULL, -- UTC milliseconds
    message      TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    account_id   BIGINT NOT NULL, -- 0: of no account
    reverse_path TEXT   NOT NULL,
    recipient    TEXT   NOT NULL,
    remote       TEXT   NOT NULL,
    detail       TEXT   NOT NULL
);
CREATE INDEX ledger_message ON ledger (message);
CREATE INDEX ledger_account ON ledger (account_id, at);
