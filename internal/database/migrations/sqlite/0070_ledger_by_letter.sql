-- The ledger is kept in the order of its letters, whose ids sort by time, instead of beside an index of them: two pages fewer
-- are written for each group of letters. Changes of mailboxes are told and no longer numbered, which is one more.

-- +goose Up
CREATE TABLE ledger_by_letter (
    message      TEXT   NOT NULL,
    n            BIGINT NOT NULL, -- from 1
    at           BIGINT NOT NULL, -- UTC milliseconds
    kind         TEXT   NOT NULL,
    account_id   BIGINT NOT NULL, -- 0: of no account
    reverse_path TEXT   NOT NULL,
    recipient    TEXT   NOT NULL,
    remote       TEXT   NOT NULL,
    detail       TEXT   NOT NULL,
    PRIMARY KEY (message, n)
) WITHOUT ROWID;
INSERT INTO ledger_by_letter (message, n, at, kind, account_id, reverse_path, recipient, remote, detail)
    SELECT message, row_number() OVER (PARTITION BY message ORDER BY id), at, kind, account_id, reverse_path, recipient, remote, detail FROM ledger;
DROP TABLE ledger;
ALTER TABLE ledger_by_letter RENAME TO ledger;
DELETE FROM generation WHERE kind = 'mailbox';
