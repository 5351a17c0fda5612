-- The ledger is kept in the order of time, and is read from the time of a letter on instead of through an index of letters: three
-- pages fewer are written for each group of letters. Changes of mailboxes are told and no longer numbered, which is one more.

-- +goose Up
CREATE TABLE ledger_by_time (
    id           INTEGER PRIMARY KEY, -- UTC milliseconds times 65536, or one more than the last
    at           BIGINT NOT NULL,     -- UTC milliseconds
    message      TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    account_id   BIGINT NOT NULL, -- 0: of no account
    reverse_path TEXT   NOT NULL,
    recipient    TEXT   NOT NULL,
    remote       TEXT   NOT NULL,
    detail       TEXT   NOT NULL
);
INSERT INTO ledger_by_time (id, at, message, kind, account_id, reverse_path, recipient, remote, detail)
    SELECT at * 65536 + row_number() OVER (PARTITION BY at ORDER BY id) - 1, at, message, kind, account_id, reverse_path, recipient, remote, detail FROM ledger;
DROP TABLE ledger;
ALTER TABLE ledger_by_time RENAME TO ledger;
DELETE FROM generation WHERE kind = 'mailbox';
