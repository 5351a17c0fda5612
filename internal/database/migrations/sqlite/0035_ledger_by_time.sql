-- Each letter wrote a page of this index, somewhere in it: a quarter of all that was written for a small letter. What happened
-- to an account's letters is read rarely, by people, from the newest row backwards.

-- +goose Up
DROP INDEX ledger_account;
