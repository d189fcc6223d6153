package pgparam

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for name, test := range map[string]struct {
		params  map[string]string
		want    map[string]string
		removed []string
		err     string
	}{
		"settings of the server stay": {map[string]string{"search_path": "x", "options": "-c x=y"}, map[string]string{"search_path": "x", "options": "-c x=y"}, nil, ""},
		"keepalives":                  {map[string]string{"keepalives": "1", "keepalives_idle": "30", "x": "y"}, map[string]string{"x": "y"}, []string{"keepalives", "keepalives_idle"}, ""},
		"encoding":                    {map[string]string{"client_encoding": "auto"}, map[string]string{}, []string{"client_encoding"}, ""},
		"preference":                  {map[string]string{"gssencmode": "prefer"}, map[string]string{}, []string{"gssencmode"}, ""},
		"demand":                      {map[string]string{"gssencmode": "require"}, nil, nil, "gssencmode=require is not supported"},
		"address":                     {map[string]string{"hostaddr": "::1"}, nil, nil, "hostaddr is not supported: name the address in host"},
		"revocation":                  {map[string]string{"sslcrl": "x"}, nil, nil, "sslcrl is not supported"},
		"name":                        {map[string]string{"fallback_application_name": "a"}, map[string]string{"application_name": "a"}, nil, ""},
		"second name":                 {map[string]string{"fallback_application_name": "a", "application_name": "b"}, map[string]string{"application_name": "b"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			removed, err := Clean(test.params)
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("want %q, got %v", test.err, err)
				}
			case err != nil || !maps.Equal(test.params, test.want) || !slices.Equal(removed, test.removed):
				t.Errorf("got %v, removed %v: %v", test.params, removed, err)
			}
		})
	}
}
