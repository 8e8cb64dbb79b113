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

// ParseKnown is like Parse, but a key that the value does not have is an error.
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

// decoded translates an error of encoding/json from Go terms to JSON terms.
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

// named translates the library's name for a kind of value to the terms of wanted.
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

// walker walks a text together with the type that it is read into. encoding/json ignores case when it matches names, so
// the walker removes the members whose name does not match exactly.
type walker struct {
	scanner
	// known is whether a member that the type does not have is an error.
	known bool
	// out is the text before the offset copied, without the removed members; nil if none was removed.
	out    []byte
	copied int
}

// kept returns the text to pass to encoding/json.
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

// members walks an object that is read into a struct.
func (w *walker) members(of reflect.Type) error {
	fields := fieldsOf(of)
	w.at++ // The brace.
	for first := true; ; first = false {
		// A comma is removed together with the member after it.
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

// leaveOut removes the member between start and the current position from the text.
func (w *walker) leaveOut(start int, first bool) {
	if w.out == nil {
		w.out = []byte{}
	}
	w.out = append(w.out, w.text[w.copied:start]...)
	// A member with an empty name replaces the first one, so that the next comma has a member before it. No struct has
	// a field without a name.
	if first {
		w.out = append(w.out, `"":0`...)
	}
	w.copied = w.at
}

// entries walks an object that is read into a map.
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

// items walks a list. A list must have as many items as the array that it is read into: encoding/json would add zeros
// or drop items.
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
