package decode

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// The database's encodings whose text is converted here, so that a byte without an
// equivalent in UTF-8 is the fault of its row. If the server converts, such a byte ends
// replication at every start (SQLSTATE 22021, 22P05).
const (
	encodingUTF8  = "UTF8"
	encodingASCII = "SQL_ASCII"
)

// Converts reports whether [Config].Encoding can have the server encoding of that name, as
// Postgres reports it in the parameter server_encoding (manual, "Character Set Support").
// For others the server has to convert.
func Converts(serverEncoding string) bool {
	return serverEncoding == encodingASCII || textEncoding(serverEncoding) != nil
}

// textEncoding returns nil for an encoding that is not converted here.
func textEncoding(name string) encoding.Encoding {
	switch name {
	case "LATIN1":
		return charmap.ISO8859_1
	case "LATIN2":
		return charmap.ISO8859_2
	case "LATIN3":
		return charmap.ISO8859_3
	case "LATIN4":
		return charmap.ISO8859_4
	case "LATIN5":
		return charmap.ISO8859_9
	case "LATIN6":
		return charmap.ISO8859_10
	case "LATIN7":
		return charmap.ISO8859_13
	case "LATIN8":
		return charmap.ISO8859_14
	case "LATIN9":
		return charmap.ISO8859_15
	case "LATIN10":
		return charmap.ISO8859_16
	case "ISO_8859_5":
		return charmap.ISO8859_5
	case "ISO_8859_6":
		return charmap.ISO8859_6
	case "ISO_8859_7":
		return charmap.ISO8859_7
	case "ISO_8859_8":
		return charmap.ISO8859_8
	case "KOI8R":
		return charmap.KOI8R
	case "KOI8U":
		return charmap.KOI8U
	case "WIN866":
		return charmap.CodePage866
	case "WIN874":
		return charmap.Windows874
	case "WIN1250":
		return charmap.Windows1250
	case "WIN1251":
		return charmap.Windows1251
	case "WIN1252":
		return charmap.Windows1252
	case "WIN1253":
		return charmap.Windows1253
	case "WIN1254":
		return charmap.Windows1254
	case "WIN1255":
		return charmap.Windows1255
	case "WIN1256":
		return charmap.Windows1256
	case "WIN1257":
		return charmap.Windows1257
	case "WIN1258":
		return charmap.Windows1258
	case "EUC_JP":
		return japanese.EUCJP
	case "EUC_KR":
		return korean.EUCKR
	case "EUC_CN":
		return simplifiedchinese.GBK
	default:
		return nil
	}
}

// converter makes UTF-8 of the text of a database in another encoding. Nil is that of a
// database in UTF-8, which has nothing to convert.
type converter struct {
	encoding string
	decoder  *encoding.Decoder // nil in SQL_ASCII, where text is UTF-8 or nothing that is known
	// windows says that bytes without a character come out as U+0080 to U+009F, as the WHATWG
	// has it; Postgres refuses them.
	windows bool
}

func newConverter(name string) (*converter, error) {
	switch name {
	case "", encodingUTF8:
		return nil, nil //nolint:nilnil // nothing to convert
	case encodingASCII:
		return &converter{encoding: name}, nil
	}
	enc := textEncoding(name)
	if enc == nil {
		return nil, fmt.Errorf("text in the encoding %s is not converted here", name)
	}
	return &converter{encoding: name, decoder: enc.NewDecoder(), windows: strings.HasPrefix(name, "WIN")}, nil
}

// garbled is what of a row does not convert: its first such column.
type garbled struct {
	column int
	err    error
}

// name returns the name of a table or of a column in UTF-8, as far as it converts.
func (c *converter) name(name string) string {
	if c == nil {
		return name
	}
	out, _ := c.text([]byte(name)) // what does not convert is no name that is configured
	return string(out)
}

var errEncoding = errors.New("it has a byte that does not convert to UTF-8")

// text returns b in UTF-8: b itself where that is so already. With an error it is as much
// as can be read, valid UTF-8 with U+FFFD in the place of the rest.
func (c *converter) text(b []byte) ([]byte, error) {
	if c == nil || isASCII(b) {
		return b, nil
	}
	if c.decoder == nil {
		if utf8.Valid(b) {
			return b, nil
		}
		return []byte(strings.ToValidUTF8(string(b), "\uFFFD")), fmt.Errorf("%w, which text must be in a database in SQL_ASCII; correct it", errEncoding)
	}
	out, err := c.decoder.Bytes(b)
	if err != nil {
		return []byte(strings.ToValidUTF8(string(b), "\uFFFD")), fmt.Errorf("%w from %s: %w", errEncoding, c.encoding, err)
	}
	failed := false
	for i, r := range string(out) {
		if r == utf8.RuneError || c.windows && r >= 0x80 && r <= 0x9F {
			failed = true
			if r != utf8.RuneError { // two bytes; the replacement has three
				return []byte(strings.Map(func(r rune) rune {
					if r >= 0x80 && r <= 0x9F {
						return utf8.RuneError
					}
					return r
				}, string(out))), fmt.Errorf("%w from %s (at character offset %d); correct it", errEncoding, c.encoding, i)
			}
		}
	}
	if failed {
		return out, fmt.Errorf("%w from %s; correct it", errEncoding, c.encoding)
	}
	return out, nil
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
