-- Notes that slot $1 is closed, as $2 says.
UPDATE walrelay.progress SET handed_over = $2, updated_at = now() WHERE slot = $1;
