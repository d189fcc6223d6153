package event

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// AppendTokens appends a value whose dots separate tokens of a subject.
func AppendTokens(dst []byte, value string) []byte {
	for {
		token, rest, more := strings.Cut(value, ".")
		dst = AppendToken(dst, token)
		if !more {
			return dst
		}
		dst = append(dst, '.')
		value = rest
	}
}

// AppendToken appends a value as one token of a subject. No two values give the same one.
func AppendToken(dst []byte, value string) []byte {
	if value == "" {
		return append(dst, '%')
	}
	const digits = "0123456789ABCDEF"
	valid := -1 // not looked at yet
	for i := range len(value) {
		c := value[i]
		escape := c <= ' ' || c == '.' || c == '*' || c == '>' || c == '%' || c == 0x7F
		if c >= utf8.RuneSelf {
			if valid < 0 {
				valid = 0
				if utf8.ValidString(value) {
					valid = 1
				}
			}
			escape = valid == 0
		}
		if escape {
			dst = append(dst, '%', digits[c>>4], digits[c&0xF])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// UnescapeToken reverses [AppendToken].
func UnescapeToken(token string) (string, error) {
	if token == "%" {
		return "", nil
	}
	b := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		if token[i] != '%' {
			b = append(b, token[i])
			continue
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("token %q ends in the middle of an escape", token)
		}
		high, low := unhex(token[i+1]), unhex(token[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("token %q has %q, which is no escape", token, token[i:i+3])
		}
		b = append(b, byte(high<<4|low))
		i += 2
	}
	return string(b), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func plainInHeader(c byte) bool { return c > ' ' && c < 0x7F && c != '"' && c != '%' }

// EscapeHeader percent-encodes the value of a header as the bindings of CloudEvents for NATS and
// for HTTP say (section 3.1.3.2 of both): space, quotes, percent signs, and everything outside of printable ASCII.
func EscapeHeader(value string) string {
	first := 0
	for first < len(value) && plainInHeader(value[first]) {
		first++
	}
	if first == len(value) {
		return value
	}
	return string(AppendEscaped(make([]byte, 0, len(value)+16), value))
}

// AppendEscaped appends the value as [EscapeHeader] writes it.
func AppendEscaped(b []byte, value string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(value) {
		if c := value[i]; plainInHeader(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&0xF])
		}
	}
	return b
}
