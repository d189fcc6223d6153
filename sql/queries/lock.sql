-- One init at a time; released at the end of the session.
SELECT pg_advisory_lock(hashtextextended('walrelay.init', 0));
