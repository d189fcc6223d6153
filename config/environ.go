package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Environ returns the environment variables that say what a configuration says, for another process: NAME=value, for
// each key that is set. What only a file can say is left out: streams, routes, and what else is a list of mappings or
// a mapping.
func Environ(cfg Config) []string {
	return environ(nil, "WALRELAY", reflect.ValueOf(cfg))
}

func environ(env []string, name string, v reflect.Value) []string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return env
		}
		return append(env, fmt.Sprint(name, "=", v.Elem().Interface()))
	}
	if v.Kind() == reflect.Struct {
		for field, value := range v.Fields() {
			env = environ(env, name+"_"+strings.ToUpper(field.Tag.Get("koanf")), value)
		}
		return env
	}
	switch {
	case v.IsZero(), v.Kind() == reflect.Map:
		return env
	case v.Kind() == reflect.Slice:
		texts, ok := reflect.TypeAssert[[]string](v)
		if !ok {
			return env
		}
		return append(env, name+"="+strings.Join(texts, ","))
	}
	return append(env, fmt.Sprint(name, "=", v.Interface()))
}
