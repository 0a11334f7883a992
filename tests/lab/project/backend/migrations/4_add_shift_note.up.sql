ALTER TABLE shifts ADD COLUMN note TEXT;
CREATE INDEX shifts_member_id_idx ON shifts (member_id);
