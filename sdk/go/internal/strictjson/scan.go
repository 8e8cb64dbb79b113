// Package strictjson reads JSON strictly: names match exactly, null is neither a string nor a number, and text that two
// readers could read differently is an error. Its errors are for clients and do not mention the plugin's types.
package strictjson

import (
	"encoding/json"
	"errors"
	"strconv"
)

// levelsMax is the deepest nesting that the server allows in a payload.
const levelsMax = 100

// Errors that do not depend on the type that a text is read into.
var (
	errNotJSON   = errors.New("is not JSON")
	errLevels    = errors.New("is nested more than 100 levels deep")
	errTwice     = errors.New("has an object with the same key twice")
	errSurrogate = errors.New("has half of a surrogate pair in a text")
	errNumber    = errors.New("has a number that is too large")
)

// scanner reads a text from start to end.
type scanner struct {
	text string
	at   int
}

// check returns an error if two readers could read the text differently.
func check(text string) error {
	if !json.Valid([]byte(text)) {
		// The limit on nesting in encoding/json is much higher than levelsMax.
		return errNotJSON
	}
	s := scanner{text: text}
	return s.value(1)
}

func (s *scanner) blanks() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t' || s.text[s.at] == '\n' || s.text[s.at] == '\r') {
		s.at++
	}
}

// value skips a value, which must be valid JSON.
func (s *scanner) value(level int) error {
	s.blanks()
	switch s.text[s.at] {
	case '{':
		return s.object(level)
	case '[':
		return s.array(level)
	case '"':
		_, err := s.string()
		return err
	}
	return s.literal()
}

func (s *scanner) object(level int) error {
	if level > levelsMax {
		return errLevels
	}
	keys := map[string]struct{}{}
	for s.at++; ; s.at++ {
		if s.blanks(); s.text[s.at] == '}' {
			break
		}
		key, err := s.string()
		if err != nil {
			return err
		}
		if _, twice := keys[key]; twice {
			return errTwice
		}
		keys[key] = struct{}{}
		s.blanks()
		s.at++ // The colon.
		if err := s.value(level + 1); err != nil {
			return err
		}
		if s.blanks(); s.text[s.at] == '}' {
			break
		}
	}
	s.at++
	return nil
}

func (s *scanner) array(level int) error {
	if level > levelsMax {
		return errLevels
	}
	for s.at++; ; s.at++ {
		if s.blanks(); s.text[s.at] == ']' {
			break
		}
		if err := s.value(level + 1); err != nil {
			return err
		}
		if s.blanks(); s.text[s.at] == ']' {
			break
		}
	}
	s.at++
	return nil
}

// string skips a string and returns its content.
func (s *scanner) string() (string, error) {
	start, escaped := s.at, false
	for s.at++; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] == '\\' {
			escaped = true
			s.at++
		}
	}
	s.at++
	raw := s.text[start:s.at]
	if !escaped {
		return raw[1 : len(raw)-1], nil
	}
	if hasHalfPair(raw) {
		return "", errSurrogate
	}
	var said string
	if err := json.Unmarshal([]byte(raw), &said); err != nil {
		return "", errNotJSON
	}
	return said, nil
}

// hasHalfPair returns whether the string has an escape for one half of a surrogate pair without the other half.
func hasHalfPair(raw string) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if raw[i] != 'u' {
			continue
		}
		unit := hex(raw[i+1 : i+5])
		i += 4
		switch {
		case unit >= 0xdc00 && unit <= 0xdfff:
			return true
		case unit < 0xd800 || unit > 0xdfff:
			continue
		case i+6 >= len(raw) || raw[i+1] != '\\' || raw[i+2] != 'u':
			return true
		}
		if low := hex(raw[i+3 : i+7]); low < 0xdc00 || low > 0xdfff {
			return true
		}
		i += 6
	}
	return false
}

func hex(digits string) uint64 {
	// This cannot fail: the digits are from valid JSON.
	unit, _ := strconv.ParseUint(digits, 16, 16)
	return unit
}

func (s *scanner) literal() error {
	start := s.at
	for s.at < len(s.text) && s.text[s.at] > ' ' && s.text[s.at] != ',' && s.text[s.at] != ']' && s.text[s.at] != '}' {
		s.at++
	}
	word := s.text[start:s.at]
	if first := word[0]; first == '-' || first >= '0' && first <= '9' {
		if _, err := strconv.ParseFloat(word, 64); err != nil {
			return errNumber
		}
	}
	return nil
}
