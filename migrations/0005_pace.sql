-- When the present attempt's first windows were known to be done, and how many they were: its pace is counted from there, and not from its claim, after which it reads and waits.
-- Null in every row that an older version writes, which may run on meanwhile: no time is told for these.
alter table job add column windows_begun_at timestamptz;
alter table job add column windows_begun integer;
