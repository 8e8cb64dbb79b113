package strictjson

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Parse reads text into the value that into points to.
func Parse(text string, into any) error {
	if err := check(text); err != nil {
		return err
	}
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		panic("a payload is read into a pointer, such as &value")
	}
	w := walker{scanner: scanner{text: text}}
	if err := w.value(target.Type().Elem()); err != nil {
		return err
	}
	return decoded(json.Unmarshal([]byte(w.kept()), into))
}

// ParseKnown is Parse, where a key that the value does not have is an error.
func ParseKnown(text string, into any) error {
	if err := check(text); err != nil {
		return err
	}
	w := walker{scanner: scanner{text: text}, known: true}
	if err := w.value(reflect.TypeOf(into).Elem()); err != nil {
		return err
	}
	return decoded(json.Unmarshal([]byte(text), into))
}

// decoded says in the words of JSON what the library says in those of Go.
func decoded(err error) error {
	var mismatch *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &mismatch):
		return errors.New("does not have the form that is expected")
	}
	found, _, _ := strings.Cut(mismatch.Value, " ")
	if kind := wanted(mismatch.Type); kind != named(found) {
		return fmt.Errorf("has %s where %s is expected", named(found), kind)
	}
	return errors.New("has a number that is out of range")
}

func wanted(of reflect.Type) string {
	switch of.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Pointer:
		return wanted(of.Elem())
	case reflect.Interface:
		return "another value"
	}
	return "a number"
}

// named is what the library calls a value, in the words of wanted.
func named(value string) string {
	switch value {
	case "string":
		return "a text"
	case "bool":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "number":
		return "a number"
	}
	return "null"
}

// walker goes through a text beside the type that it is read into. The library matches names in any case: members whose name is
// another one are left out of what it gets.
type walker struct {
	scanner
	// known is whether members that the type does not have are errors.
	known bool
	// out is the text without the members that were left out, as far as copied goes; nil where there are none.
	out    []byte
	copied int
}

// kept is the text that the library gets.
func (w *walker) kept() string {
	if w.out == nil {
		return w.text
	}
	return string(w.out) + w.text[w.copied:]
}

var (
	readsJSON = reflect.TypeFor[json.Unmarshaler]()
	readsText = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (w *walker) value(of reflect.Type) error {
	w.blanks()
	first := w.text[w.at]
	for of.Kind() == reflect.Pointer {
		if reads := of.Implements(readsJSON) || of.Implements(readsText); first == 'n' || reads {
			return w.scanner.value(0)
		}
		of = of.Elem()
	}
	itself := reflect.PointerTo(of)
	if of.Kind() == reflect.Interface || itself.Implements(readsJSON) {
		return w.scanner.value(0)
	}
	if first == 'n' {
		return fmt.Errorf("has null where %s is expected", wanted(of))
	}
	switch {
	case itself.Implements(readsText):
	case first == '{' && of.Kind() == reflect.Struct:
		return w.members(of)
	case first == '{' && of.Kind() == reflect.Map:
		return w.entries(of.Elem())
	case first == '[' && (of.Kind() == reflect.Slice || of.Kind() == reflect.Array):
		return w.items(of)
	}
	return w.scanner.value(0)
}

// members goes past an object that is read into a struct.
func (w *walker) members(of reflect.Type) error {
	fields := fieldsOf(of)
	w.at++ // The brace.
	for first := true; ; first = false {
		// A comma belongs to the member after it, or where the first is left out, to the one before.
		if w.blanks(); w.text[w.at] == '}' {
			break
		}
		start := w.at
		if w.text[w.at] == ',' {
			w.at++
			w.blanks()
		}
		name, err := w.string()
		if err != nil {
			return err
		}
		w.blanks()
		w.at++ // The colon.
		if field, there := fields[name]; there {
			if err := w.value(field); err != nil {
				return err
			}
			continue
		}
		if w.known {
			return fmt.Errorf("has the key %q, which is not known", name)
		}
		if err := w.scanner.value(0); err != nil {
			return err
		}
		w.leaveOut(start, first)
	}
	w.at++
	return nil
}

// leaveOut takes the member from start to here out of the text.
func (w *walker) leaveOut(start int, first bool) {
	if w.out == nil {
		w.out = []byte{}
	}
	w.out = append(w.out, w.text[w.copied:start]...)
	// An empty name stands in for the first member, so that the comma of the next one has something before it: no struct has a
	// field without a name.
	if first {
		w.out = append(w.out, `"":0`...)
	}
	w.copied = w.at
}

// entries goes past an object that is read into a map.
func (w *walker) entries(of reflect.Type) error {
	for w.at++; ; w.at++ {
		if w.blanks(); w.text[w.at] == '}' {
			break
		}
		if _, err := w.string(); err != nil {
			return err
		}
		w.blanks()
		w.at++ // The colon.
		if err := w.value(of); err != nil {
			return err
		}
		if w.blanks(); w.text[w.at] == '}' {
			break
		}
	}
	w.at++
	return nil
}

// items goes past a list. The library fills an array that the list does not fit with zeros, or leaves items out.
func (w *walker) items(of reflect.Type) error {
	count := 0
	for w.at++; ; w.at++ {
		if w.blanks(); w.text[w.at] == ']' {
			break
		}
		if err := w.value(of.Elem()); err != nil {
			return err
		}
		count++
		if w.blanks(); w.text[w.at] == ']' {
			break
		}
	}
	w.at++
	if of.Kind() == reflect.Array && count != of.Len() {
		return fmt.Errorf("has a list of %d items where %d are expected", count, of.Len())
	}
	return nil
}
