DROP INDEX shifts_member_id_idx;
ALTER TABLE shifts DROP COLUMN note;
