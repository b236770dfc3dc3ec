-- A row of job is updated twice: when it is claimed and when it is final. With half of each
-- page left free, a claim writes the new version beside the old one and touches no index
-- (a heap-only update). On full pages none is: each claim wrote every index, and twice as
-- much WAL. Holds for pages that are written from now on.
--
-- Vacuum comes after a twentieth of the rows has changed, not after a fifth: a claim walks
-- over the dead entries at the front of its index.
alter table job set (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
