CREATE TABLE shifts (
    id         BIGSERIAL PRIMARY KEY,
    @COLUMN@   TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
INSERT INTO shifts (@COLUMN@) VALUES ('Friday door'), ('Saturday bar'), ('Sunday stage');
