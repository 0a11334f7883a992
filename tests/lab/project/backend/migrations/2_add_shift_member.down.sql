ALTER TABLE shifts DROP COLUMN member_id;
