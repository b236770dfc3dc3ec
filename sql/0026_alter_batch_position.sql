-- A batch may have more jobs than a smallint can count: `jobrunner submit` makes one batch of a
-- whole file. (Of a large table the change takes a while, in which nothing is read or written.)

alter table job alter column batch_position type integer;
