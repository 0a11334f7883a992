ALTER TABLE shifts ADD COLUMN member_id BIGINT REFERENCES members (id);
