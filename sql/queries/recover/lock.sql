-- Takes the lock of recoveries of slot $1 for this session; false if another has it.
SELECT pg_try_advisory_lock(hashtextextended('walrelay.recover.' || $1, 0));
