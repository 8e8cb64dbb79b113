package roster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const namesMax = 1000

func names(t *testing.T, roster Roster, now uint64, expected ...string) {
	t.Helper()
	if found := roster.Names(now); !slices.Equal(found, expected) {
		t.Errorf("at %d there are %q and not %q", now, found, expected)
	}
}

func TestUsersOfAKilledNodeAreGoneWhenTheirMarksEnd(t *testing.T) {
	roster := Roster{}
	roster.Came("ann", "killed", 100, namesMax)
	roster.Came("bob", "killed", 100, namesMax)
	roster.Came("bob", "other", 100, namesMax)
	roster.Seen("bob", "other", 200, namesMax)
	names(t, roster, 99, "ann", "bob")
	names(t, roster, 100, "bob")
	if gone := roster.Expire(100, 8); !slices.Equal(gone, []string{"ann"}) {
		t.Errorf("%q are told to be gone", gone)
	}
	if gone := roster.Expire(100, 8); gone != nil {
		t.Errorf("%q are told again", gone)
	}
	roster.Went("bob", "other")
	names(t, roster, 101)
}

func TestAUserComesWithTheFirstConnectionAndGoesWithTheLast(t *testing.T) {
	roster := Roster{}
	roster.Came("ann", "a", 100, namesMax)
	roster.Came("ann", "a", 100, namesMax)
	roster.Came("ann", "b", 100, namesMax)
	roster.Went("ann", "a")
	roster.Went("ann", "b")
	names(t, roster, 1, "ann")
	roster.Went("ann", "a")
	names(t, roster, 1)
	roster.Went("ann", "a")
	names(t, roster, 1)
}

func TestWhoHasShownNoSignOfLifeIsBackWithTheNextOne(t *testing.T) {
	roster := Roster{}
	roster.Came("ann", "a", 100, namesMax)
	roster.Expire(100, 8)
	names(t, roster, 100)
	roster.Seen("ann", "a", 200, namesMax)
	names(t, roster, 100, "ann")
	roster.Went("ann", "a")
	names(t, roster, 100)
}

func TestTheValueFitsIntoTheStoreWhateverUsersAreCalled(t *testing.T) {
	roster := Roster{}
	for i := range 1000 {
		roster.Came(fmt.Sprint(i)+strings.Repeat("x", 250), "node", 100, namesMax)
	}
	value, err := roster.Value()
	if err != nil || len(value) > bytesMax || len(roster) < 100 {
		t.Fatalf("%d names take %d bytes: %v", len(roster), len(value), err)
	}
	read, err := Parse(value)
	if err != nil || len(read) != len(roster) {
		t.Fatalf("%d names were kept: %v", len(read), err)
	}
	small := Roster{}
	for i := range 3 {
		small.Came(fmt.Sprint(i), "node", 100, 2)
	}
	names(t, small, 1, "0", "1")
}

func TestOneCallTellsOfSoManyAndTheNextOfTheRest(t *testing.T) {
	roster := Roster{}
	for _, user := range []string{"a", "b", "c"} {
		roster.Came(user, "killed", 100, namesMax)
	}
	first, second := roster.Expire(100, 2), roster.Expire(100, 2)
	if !slices.Equal(first, []string{"a", "b"}) || !slices.Equal(second, []string{"c"}) {
		t.Errorf("%q, then %q", first, second)
	}
}
