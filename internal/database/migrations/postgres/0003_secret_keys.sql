-- +goose Up

CREATE TABLE secret_keys (
  id text COLLATE "C" PRIMARY KEY
);
