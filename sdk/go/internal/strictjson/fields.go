package strictjson

import (
	"reflect"
	"strings"
	"sync"
)

// known caches the fields of structs by their type.
var known sync.Map

// field is a candidate for a name, as encoding/json sees it.
type field struct {
	of     reflect.Type
	depth  int
	tagged bool
	// twice is whether another field of the same rank has the same name. Then neither counts.
	twice bool
}

// fieldsOf returns the types of a struct's fields by their names in JSON, including those of embedded structs. It
// follows the rules of encoding/json: the shallowest field wins, then the one with a tag, otherwise none.
func fieldsOf(of reflect.Type) map[string]reflect.Type {
	if found, there := known.Load(of); there {
		return found.(map[string]reflect.Type)
	}
	candidates := map[string]field{}
	collect(of, 0, map[reflect.Type]bool{}, candidates)
	fields := make(map[string]reflect.Type, len(candidates))
	for name, candidate := range candidates {
		// An ambiguous name has no field, and must not match a field that differs only in case.
		if !candidate.twice {
			fields[name] = candidate.of
		}
	}
	known.Store(of, fields)
	return fields
}

func collect(of reflect.Type, depth int, inside map[reflect.Type]bool, candidates map[string]field) {
	if inside[of] {
		return
	}
	inside[of] = true
	defer delete(inside, of)
	for i := range of.NumField() {
		at := of.Field(i)
		tag := at.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		embedded := at.Type
		if at.Anonymous && embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		isEmbedded := at.Anonymous && embedded.Kind() == reflect.Struct
		switch {
		case tag == "-" || !at.IsExported() && !isEmbedded:
			continue
		case isEmbedded && name == "":
			collect(embedded, depth+1, inside, candidates)
			continue
		}
		candidate := field{of: at.Type, depth: depth, tagged: name != ""}
		if name == "" {
			name = at.Name
		}
		candidates[name] = better(candidates[name], candidate)
	}
}

func better(before, now field) field {
	switch {
	case before.of == nil || now.depth < before.depth || now.depth == before.depth && now.tagged && !before.tagged:
		return now
	case now.depth == before.depth && now.tagged == before.tagged:
		before.twice = true
	}
	return before
}
