CREATE TABLE members (
    id           BIGSERIAL PRIMARY KEY,
    display_name TEXT NOT NULL
);
INSERT INTO members (display_name) VALUES ('Aoi'), ('Haru');
