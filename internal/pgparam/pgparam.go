// Package pgparam sorts out parameters of libpq's connection strings that are not
// settings of the server: the driver would send them to the server, which refuses
// each connection for them.
//
// Input: the parameters that the driver does not know. Output: the same without
// those that mean nothing here, or an error for those that cannot be ignored. The
// package imports nothing of the project.
package pgparam

import (
	"fmt"
	"slices"
)

// ignored are parameters without which a connection is the same, or as safe: how
// TCP probes, what walrelay sets itself, and preferences.
var ignored = []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
	"client_encoding", "sslcompression", "sslkeylogfile", "gsslib", "gssdelegation", "load_balance_hosts", "scram_client_key", "scram_server_key",
}

// refused are parameters that ask for something that would not be done.
var refused = map[string]string{
	"hostaddr":                 "name the address in host",
	"requirepeer":              "the driver does not check the peer of a socket",
	"sslcrl":                   "the driver does not read revocation lists",
	"sslcrldir":                "the driver does not read revocation lists",
	"ssl_min_protocol_version": "the driver's own minimum is TLS 1.2",
	"ssl_max_protocol_version": "the driver has no maximum",
	"replication":              "walrelay sets it itself",
	"options_file":             "the driver does not read it",
}

// Clean removes parameters that mean nothing here, and returns their names. The
// error names a parameter that cannot be ignored, and what to do.
func Clean(params map[string]string) (removed []string, err error) {
	for name, why := range refused {
		if _, ok := params[name]; ok {
			return nil, fmt.Errorf("parameter %s is not supported: %s; leave it out", name, why)
		}
	}
	switch mode := params["gssencmode"]; mode {
	case "", "disable", "prefer":
		if _, ok := params["gssencmode"]; ok {
			delete(params, "gssencmode")
			removed = append(removed, "gssencmode")
		}
	default:
		return nil, fmt.Errorf("parameter gssencmode=%s is not supported: the driver has no GSSAPI encryption; use sslmode", mode)
	}
	if name, ok := params["fallback_application_name"]; ok {
		delete(params, "fallback_application_name")
		if params["application_name"] == "" {
			params["application_name"] = name
		}
	}
	for _, name := range ignored {
		if _, ok := params[name]; ok {
			delete(params, name)
			removed = append(removed, name)
		}
	}
	slices.Sort(removed)
	return removed, nil
}
