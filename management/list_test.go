package management

import (
	"net/url"
	"strings"
	"testing"
)

func sample() *list {
	var items []object
	for _, name := range []string{"b", "a", "D", "c", "aa"} {
		items = append(items, object{{"name", name}, {"vhost", "/"}, {"n", len(name)}, {"deep", object{{"x", 1}, {"y", object{{"z", name == "c"}}}}}})
	}
	return rows(items)
}

func TestListsAreSortedPagedAndCut(t *testing.T) {
	for query, want := range map[string]string{
		"columns=name":                                `[{"name":"D"},{"name":"a"},{"name":"aa"},{"name":"b"},{"name":"c"}]`,
		"columns=name&sort_reverse=true":              `[{"name":"c"},{"name":"b"},{"name":"aa"},{"name":"a"},{"name":"D"}]`,
		"columns=name&sort=n&sort_reverse=true":       `[{"name":"aa"},{"name":"c"},{"name":"b"},{"name":"a"},{"name":"D"}]`,
		"columns=name&sort=deep.y.z":                  `[{"name":"D"},{"name":"a"},{"name":"aa"},{"name":"b"},{"name":"c"}]`,
		"columns=deep.y.z,n&page=1&page_size=1":       `{"filtered_count":5,"item_count":1,"items":[{"n":1,"deep":{"y":{"z":false}}}],"page":1,"page_count":5,"page_size":1,"total_count":5}`,
		"columns=name&page=2&page_size=2":             `{"filtered_count":5,"item_count":2,"items":[{"name":"aa"},{"name":"b"}],"page":2,"page_count":3,"page_size":2,"total_count":5}`,
		"columns=name&page=1&name=A":                  `{"filtered_count":2,"item_count":2,"items":[{"name":"a"},{"name":"aa"}],"page":1,"page_count":1,"page_size":100,"total_count":5}`,
		"columns=name&page=1&name=^a$&use_regex=true": `{"filtered_count":1,"item_count":1,"items":[{"name":"a"}],"page":1,"page_count":1,"page_size":100,"total_count":5}`,
		"page=1&name=none":                            `{"filtered_count":0,"item_count":0,"items":[],"page":1,"page_count":0,"page_size":100,"total_count":5}`,
		"name=a&columns=n":                            `[{"n":1},{"n":1},{"n":2},{"n":1},{"n":1}]`,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		v, err := sample().render(q)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if got, err := appendJSON(nil, v); string(got) != want || err != nil {
			t.Errorf("%s:\n got %s (%v)\nwant %s", query, got, err, want)
		}
	}
}

func TestPagesThatThereAreNotAreRefusedAsByRabbitMQ(t *testing.T) {
	for query, want := range map[string]string{
		"page=0":                         "Invalid pagination parameters: page number 0, page size undefined",
		"page=1&page_size=501":           "Invalid pagination parameters: page number 1, page size 501",
		"page=1&page_size=0":             "Invalid pagination parameters: page number 1, page size 0",
		"page=x":                         "Pagination parameters are invalid",
		"page_size=x":                    "Pagination parameters are invalid",
		"page=1&name=(&use_regex=true":   "Pagination parameters are invalid",
		"page=9":                         "Page out of range, page: 9 page size: 100, len: 5",
		"page=9223372036854775807":       "Page out of range, page: 9223372036854775807 page size: 100, len: 5",
		"page=99999999999999999999":      "Pagination parameters are invalid",
		"page=-9223372036854775808":      "Invalid pagination parameters: page number -9223372036854775808, page size undefined",
		"page=92233720368547758&sort=no": "Page out of range, page: 92233720368547758 page size: 100, len: 5",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sample().render(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", query, err, want)
		}
	}
}

func TestJSONIsWhatReadersTake(t *testing.T) {
	got, err := appendJSON(nil, object{{"a\"\\\n\x01\u2028ü\xff", []any{nil, true, 1.0, 0.5, -3, uint64(1) << 63, []string{}}}})
	want := `{"a\"\\\n\u0001` + "\u2028ü\ufffd" + `":[null,true,1.0,0.5,-3,9223372036854775808,[]]}`
	if string(got) != want || err != nil {
		t.Errorf("got %s (%v)\nwant %s", got, err, want)
	}
}
