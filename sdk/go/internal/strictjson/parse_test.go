package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
)

type inner struct {
	Text string `json:"text"`
}

type Embedded struct {
	Msg string `json:"msg"`
}

type message struct {
	Embedded
	Inner  inner             `json:"inner"`
	List   []inner           `json:"list"`
	Map    map[string]inner  `json:"map"`
	Maybe  *inner            `json:"maybe"`
	Raw    json.RawMessage   `json:"raw"`
	Any    any               `json:"any"`
	Pair   *[2]int8          `json:"pair"`
	Names  map[string]string `json:"names"`
	Kelvin string            `json:"k"`
	Plain  string
}

func TestAMemberIsReadByItsExactNameAlone(t *testing.T) {
	var read message
	text := `{ "MSG":"x","msg":"bad" ,"Msg":"fine", "mſg":1,"K":"kelvin","plain":"x","inner":{"TEXT":1,"Text":"x","text":"in"},
		"list":[{"tExt":"x"},{"text":"l","TEXT":"x"}],"map":{"A":{"Text":"x"}},"maybe":{"Text":"x"} , "names":{"a":"1","A":"2"}}`
	if err := Parse(text, &read); err != nil {
		t.Fatal(err)
	}
	if read.Msg != "bad" || read.Kelvin != "" || read.Plain != "" || read.Inner.Text != "in" || read.List[0].Text != "" ||
		read.List[1].Text != "l" || read.Map["A"].Text != "" || read.Maybe.Text != "" || read.Names["A"] != "2" {
		t.Fatalf("%+v", read)
	}
}

func TestWhatReadersCouldTakeForDifferentThingsIsAnError(t *testing.T) {
	for text, part := range map[string]string{
		``:                         "is not JSON",
		`{`:                        "is not JSON",
		`{} {}`:                    "is not JSON",
		`{"msg":"a","msg":"b"}`:    "same key twice",
		`{"x":{"\u0061":1,"a":2}}`: "same key twice",
		`{"msg":"\ud83d"}`:         "surrogate",
		`{"x":["\ude00"]}`:         "surrogate",
		`{"\ud83d\u0041":1}`:       "surrogate",
		`{"any":1e400}`:            "too large",
		`{"any":` + strings.Repeat("9", 5000) + `}`:                           "too large",
		`{"any":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: "100 levels",
	} {
		var read message
		if err := Parse(text, &read); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%.40s: %v", text, err)
		}
	}
	var fine any
	for _, text := range []string{`"\ud83d\ude00"`, `"\\ud83d"`, `[[]]`, ` {"a" : {"a":1}} `, strings.Repeat("[", 100) + strings.Repeat("]", 100)} {
		if err := Parse(text, &fine); err != nil {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

func TestNullIsReadIntoWhatCanBeNothingAlone(t *testing.T) {
	for text, fits := range map[string]bool{
		`null`: false, `{"msg":null}`: false, `{"list":null}`: false, `{"map":null}`: false, `{"list":[null]}`: false,
		`{"names":{"a":null}}`: false, `{"maybe":null}`: true, `{"any":null}`: true, `{"raw":null}`: true,
	} {
		var read message
		if err := Parse(text, &read); (err == nil) != fits {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAnErrorNamesNothingOfTheProgram(t *testing.T) {
	for text, said := range map[string]string{
		`7`:                     "has a number where an object is expected",
		`{"msg":7}`:             "has a number where a text is expected",
		`{"inner":{"text":[]}}`: "has a list where a text is expected",
		`{"pair":[1,300]}`:      "has a number that is out of range",
		`{"pair":[1]}`:          "has a list of 1 items where 2 are expected",
		`{"pair":[1,2,3]}`:      "has a list of 3 items where 2 are expected",
		`{"pair":[1,1.5]}`:      "has a number that is out of range",
	} {
		var read message
		if err := Parse(text, &read); err == nil || err.Error() != said {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAKeyThatIsNotKnownIsNamed(t *testing.T) {
	var read inner
	if err := ParseKnown(`{"Text":"x"}`, &read); err == nil || !strings.Contains(err.Error(), `"Text"`) {
		t.Fatal(err)
	}
	if err := ParseKnown(`{"text":"x"}`, &read); err != nil || read.Text != "x" {
		t.Fatal(err)
	}
}
