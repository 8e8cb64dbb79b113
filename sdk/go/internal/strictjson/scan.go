// Package strictjson reads JSON as receivers do: names match exactly, null is no text and no number, and what two readers could
// take for different things is an error. Its errors are for clients, and name nothing of the plugin.
package strictjson

import (
	"encoding/json"
	"errors"
	"strconv"
)

// levelsMax is as deep as the server lets a payload be.
const levelsMax = 100

// What is wrong with a text, whatever it is read into.
var (
	errNotJSON   = errors.New("is not JSON")
	errLevels    = errors.New("is nested more than 100 levels deep")
	errTwice     = errors.New("has an object with the same key twice")
	errSurrogate = errors.New("has half of a surrogate pair in a text")
	errNumber    = errors.New("has a number that is too large")
)

// scanner goes through a text once. What stands where is handed to a visitor.
type scanner struct {
	text string
	at   int
}

// check says whether any reader takes the text for the same thing.
func check(text string) error {
	if !json.Valid([]byte(text)) {
		// The parser of the library has a bound of its own, which is far away.
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

// value goes past a value, which is valid JSON.
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

// string goes past a string, and returns what it says.
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

// hasHalfPair says whether the string has an escape that is half of a surrogate pair, without the other half.
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
	// It is valid JSON.
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
