-- What has become of the event with the id $1 of the outbox table $2.
SELECT s.state, s.attempts, coalesce(s.last_error, ''), s.next_attempt_at, coalesce(s.reason, '')
FROM walrelay.event_status($1::text, $2::text) AS s;
