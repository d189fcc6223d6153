package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// usages says, for every key that a flag can set, what it is for; in the order
// of the help text.
func usages() [][2]string {
	return [][2]string{
		{"postgres.url", "Postgres URL or keyword string (required)"},
		{"postgres.url_file", "file with the URL, read each time that a connection is made"},
		{"postgres.password_file", "file with the password, read each time that a connection is made"},
		{"postgres.password_command", "program and arguments, separated by commas, that prints the password"},
		{"postgres.standby", "host:port of a standby that has the slot (Postgres 16 and newer)"},
		{"postgres.role_prefix", `begins the names of the roles that init makes (default "walrelay")`},
		{"nats.url", "NATS URL, or several separated by commas (required)"},
		{"nats.user", "NATS user"},
		{"nats.password", "NATS password; better given in the environment"},
		{"nats.token", "NATS token; better given in the environment"},
		{"nats.url_file", "file with the NATS URLs"},
		{"nats.password_file", "file with the NATS password, read each time that a connection is made"},
		{"nats.token_file", "file with the NATS token, read each time that a connection is made"},
		{"nats.creds_file", "file with a NATS user JWT and nkey seed"},
		{"nats.nkey_file", "file with a NATS nkey seed"},
		{"nats.tls.ca_file", "PEM file with the authorities to trust for NATS"},
		{"nats.tls.cert_file", "PEM file with the client certificate for NATS"},
		{"nats.tls.key_file", "PEM file with the client key for NATS"},
		{"nats.tls.handshake_first", "begin the connection to NATS with the TLS handshake"},
		{"nats.domain", "JetStream domain"},
		{"nats.inbox_prefix", `begins the subjects of answers (default "_INBOX")`},
		{"nats.service", "answer with the status over NATS, as a micro service"},
		{"slot", `replication slot (default "walrelay")`},
		{"publication", `publication (default "walrelay")`},
		{"failover", "create the slot with failover (Postgres 17 and newer)"},
		{"outbox.tables", `outbox tables, separated by commas (default "public.outbox")`},
		{"publish.subject", `template of subjects (default "events.{type}")`},
		{"publish.mode", `CloudEvents content mode: binary or structured (default "binary")`},
		{"publish.atomic", "publish each transaction as one atomic batch (nats-server 2.12 and newer)"},
		{"publish.atomic_max_events", "events that such a batch may have (default 1000)"},
		{"publish.atomic_overflow", "what becomes of a transaction that cannot be one: delay (default) or split"},
		{"publish.max_in_flight", "events per stream sent and not yet acknowledged (default 8192)"},
		{"publish.max_in_flight_bytes", "bytes of these events (default 16MiB)"},
		{"publish.message_id", "messages of owned streams have a Nats-Msg-Id (default true)"},
		{"publish.max_event_size", "bytes that an event may have (default max_payload of the NATS server, at least 1MiB)"},
		{"outbox.after_publish", "what becomes of published rows: delete (default), mark or keep"},
		{"outbox.repair_window", "how long published rows are kept (default 1h)"},
		{"retry.initial", "delay after the first failed attempt to publish an event (default 5s)"},
		{"retry.factor", "by how much each further delay is longer (default 2)"},
		{"retry.max", "longest delay (default 1h)"},
		{"retry.max_retries", "how often an event is tried again (default 15, -1 for never)"},
		{"retry.failed_holds_key", "events out of retries go on holding their key"},
		{"publish.ack_timeout", "how long an acknowledgement may take (default 5s)"},
		{"http.addr", `address of health, status, metrics and the console, or "off" (default "127.0.0.1:8080")`},
		{"http.tls.cert_file", "PEM file with the certificate with which that is served"},
		{"http.tls.key_file", "PEM file with its key"},
		{"console.enabled", "serve the console (default true)"},
		{"console.token", "what signs in at the console; better given in a file"},
		{"console.token_file", "file with the token of the console, read at each request"},
		{"console.behind_proxy", "all requests to the console come from a proxy that ends TLS"},
		{"log.level", `debug, info, warn or error (default "info")`},
		{"log.format", `json, console or auto (default "auto")`},
		{"shutdown_timeout", "how long to wait at the end for what is in flight (default 5s)"},
	}
}

// addConfigFlags gives a command --config and a flag for every key that one
// value can say; of those only that begin as one of prefixes does, if there are
// any.
func addConfigFlags(cmd *cobra.Command, prefixes ...string) *configSource {
	s := &configSource{schema: configSchema(), flags: map[string]any{}}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&s.path, "config", "c", "", "configuration file (default walrelay.yaml, if it exists)")
	kinds := map[string]kind{}
	for _, n := range s.schema.scalars() {
		kinds[n.path] = n.kind
	}
	for _, usage := range usages() {
		key := usage[0]
		if len(prefixes) > 0 && !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			continue
		}
		flag := flags.VarPF(&flagValue{key: key, kind: kinds[key], values: s.flags}, flagName(key), "", usage[1])
		if kinds[key] == boolean {
			flag.NoOptDefVal = "true"
		}
	}
	return s
}

// flagName is the name of a key's flag.
func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

// flagValue is the flag of one key.
type flagValue struct {
	key    string
	kind   kind
	values map[string]any
	given  string
}

// Set implements pflag.Value.
func (v *flagValue) Set(given string) error {
	parsed, err := v.kind.parse(given)
	if err != nil {
		return err
	}
	v.given, v.values[v.key] = given, parsed
	return nil
}

// String implements pflag.Value. It is empty until the flag is given, so that
// the help text shows no default but the one in the usage.
func (v *flagValue) String() string { return v.given }

// Type implements pflag.Value.
func (v *flagValue) Type() string { return fmt.Sprint(v.kind) }
