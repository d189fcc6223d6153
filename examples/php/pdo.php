<?php
// Events with PDO: an INSERT in the transaction that you have.

declare(strict_types=1);

$url = parse_url(getenv('DATABASE_URL'));
$db = new PDO(
    sprintf('pgsql:host=%s;port=%d;dbname=%s', $url['host'], $url['port'], ltrim($url['path'], '/')),
    $url['user'] ?? null,
    $url['pass'] ?? null,
    [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION],
);
$db->exec('CREATE TABLE IF NOT EXISTS orders_pdo (id serial PRIMARY KEY, customer text)');

/** Writes an event into the transaction of the connection, and returns its id. */
function publish(PDO $db, string $type, array $data, ?string $key = null, ?DateTimeInterface $at = null): string
{
    $statement = $db->prepare(
        "INSERT INTO public.outbox (event_type, source, subject, data, partition_key, scheduled_at)
         VALUES (?, '/orders', 'pdo', ?, ?, ?) RETURNING id"
    );
    // JSON_FORCE_OBJECT: an empty array of PHP would be [].
    $statement->execute([$type, json_encode($data, JSON_THROW_ON_ERROR | JSON_FORCE_OBJECT), $key, $at?->format('c')]);
    return $statement->fetchColumn();
}

$db->beginTransaction();
$number = $db->query("INSERT INTO orders_pdo (customer) VALUES ('customer-8') RETURNING id")->fetchColumn();
$placed = publish($db, 'order.placed', ['order' => $number], 'customer-8');
$db->commit();

$db->beginTransaction();
$db->exec("INSERT INTO orders_pdo (customer) VALUES ('nobody')");
publish($db, 'order.never', []);
$db->rollBack();

publish($db, 'order.reminder', ['order' => $number], null, new DateTimeImmutable('+1 second'));

$status = $db->prepare('SELECT state FROM walrelay.event_status(?::text)');
for ($i = 0; $i < 100; $i++) {
    $status->execute([$placed]);
    $state = $status->fetchColumn();
    if ($state === 'published') {
        break;
    }
    usleep(100_000);
}
echo $placed, ' ', $state, "\n";
