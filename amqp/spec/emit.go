package main

import (
	"bytes"
	"fmt"
	"go/format"
	"strings"
)

// kind tells how one type of the specification is held and coded.
type kind struct {
	goType string
	append string // statement appending %s to b
	decode string // cursor method
	zero   string // statement appending the value of a reserved field
}

var kinds = map[string]kind{
	"bit":       {goType: "bool"},
	"octet":     {"uint8", "b = append(b, %s)", "uint8", "b = append(b, 0)"},
	"short":     {"uint16", "b = binary.BigEndian.AppendUint16(b, %s)", "uint16", "b = append(b, 0, 0)"},
	"long":      {"uint32", "b = binary.BigEndian.AppendUint32(b, %s)", "uint32", "b = append(b, 0, 0, 0, 0)"},
	"longlong":  {"uint64", "b = binary.BigEndian.AppendUint64(b, %s)", "uint64", ""},
	"timestamp": {"uint64", "b = binary.BigEndian.AppendUint64(b, %s)", "uint64", ""},
	"shortstr":  {"string", "b = appendShortString(b, %s)", "text", "b = append(b, 0)"},
	"longstr":   {"[]byte", "b = appendLongBytes(b, %s)", "longBytes", "b = append(b, 0, 0, 0, 0)"},
	"table":     {"Table", "b = %s.Append(b)", "table", "b = append(b, 0, 0, 0, 0)"},

	// Not of the specification: variants chosen by variant.
	"alias": {"[]byte", "b = appendShortBytes(b, %s)", "shortBytes", ""},
	"raw":   {"string", "b = appendShortString(b, %s)", "rawText", ""},
	"prose": {"string", "b = appendProse(b, %s)", "text", ""},
}

// variant picks how a field of m is coded where the type alone does not say it:
// the hot basic.publish aliases its input, names in methods with content are not
// checked for UTF-8 (RabbitMQ does not either), and text meant for people is cut
// to fit where any other string would be refused.
func (m *method) variant(f field) kind {
	switch {
	case f.Type != "shortstr" || f.Reserved:
	case m.class.Name == "basic" && m.Name == "publish":
		return kinds["alias"]
	case f.Name == "reply-text" || f.Name == "reason":
		return kinds["prose"]
	case m.Content:
		return kinds["raw"]
	}
	return kinds[f.Type]
}

// emit renders every file.
func emit(doc *document) (map[string][]byte, error) {
	files := map[string]string{"ids_gen.go": emitIDs(doc), "reply_gen.go": emitReplies(doc)}
	for i := range doc.Classes {
		c := &doc.Classes[i]
		files[c.Name+"_gen.go"] = emitClass(c)
	}
	out := make(map[string][]byte, len(files))
	for name, body := range files {
		text := header
		if strings.Contains(body, "binary.BigEndian") {
			text += "import \"encoding/binary\"\n\n"
		}
		formatted, err := format.Source([]byte(text + body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = formatted
	}
	return out, nil
}

// printer collects text, so that emitters read as the code they write.
type printer struct{ bytes.Buffer }

func (p *printer) line(format string, args ...any) { fmt.Fprintf(&p.Buffer, format+"\n", args...) }

func emitIDs(doc *document) string {
	var p printer
	p.line("// The id of every method, in order.\nconst (")
	for _, m := range doc.methods() {
		p.line("%sID MethodID = %d<<16 | %d", m.goName(), m.class.Index, m.Index)
	}
	p.line(")\n")

	p.line("// methodName returns the name the specification gives a method, empty if there is none.")
	p.line("func methodName(id MethodID) string {\nswitch id {")
	for _, m := range doc.methods() {
		p.line("case %sID:\nreturn %q", m.goName(), m.specName())
	}
	p.line("}\nreturn \"\"\n}\n")

	p.line("// newMethod returns an empty struct for a method that can be decoded, nil for any other id.")
	p.line("func newMethod(id MethodID) Method {\nswitch id {")
	for _, m := range doc.methods() {
		if !m.Unimplemented {
			p.line("case %sID:\nreturn new(%s)", m.goName(), m.goName())
		}
	}
	p.line("}\nreturn nil\n}\n")

	emitSet(&p, doc, "hasContent reports whether a method is followed by a content header and a body.",
		"hasContent", func(m *method) bool { return m.Content })
	emitSet(&p, doc, "fromClient reports whether a client may send a method.",
		"fromClient", func(m *method) bool { return m.receivedBy("server") })
	emitSet(&p, doc, "fromServer reports whether a server may send a method.",
		"fromServer", func(m *method) bool { return m.receivedBy("client") })
	return p.String()
}

func emitSet(p *printer, doc *document, comment, name string, in func(*method) bool) {
	var ids []string
	for _, m := range doc.methods() {
		if in(m) {
			ids = append(ids, m.goName()+"ID")
		}
	}
	p.line("// %s", comment)
	p.line("func %s(id MethodID) bool {\nswitch id {\ncase %s:\nreturn true\n}\nreturn false\n}\n", name, strings.Join(ids, ",\n"))
}

func emitReplies(doc *document) string {
	var codes []constant
	for _, c := range doc.Constants {
		if c.Class != "" || c.Name == "reply-success" {
			codes = append(codes, c)
		}
	}
	replyName := func(c constant) string { return "Reply" + goName(strings.TrimPrefix(c.Name, "reply-")) }

	var p printer
	p.line("// Reply codes of connection.close, channel.close and basic.return.\nconst (")
	for _, c := range codes {
		p.line("%s uint16 = %d", replyName(c), c.Value)
	}
	p.line(")\n")
	p.line("// ReplyName returns the name of a reply code as it starts every error text, such as NOT_FOUND;\n// empty for a code the protocol does not know.")
	p.line("func ReplyName(code uint16) string {\nswitch code {")
	for _, c := range codes {
		p.line("case %s:\nreturn %q", replyName(c), strings.ToUpper(strings.ReplaceAll(c.Name, "-", "_")))
	}
	p.line("}\nreturn \"\"\n}\n")
	p.line("// softError reports whether a code closes the channel only. Every other code, also an unknown one,\n// closes the connection.")
	p.line("func softError(code uint16) bool {\nswitch code {\ncase")
	var soft []string
	for _, c := range codes {
		if c.Class == "soft-error" {
			soft = append(soft, replyName(c))
		}
	}
	p.line("%s:\nreturn true\n}\nreturn false\n}", strings.Join(soft, ",\n"))
	return p.String()
}

func emitClass(c *class) string {
	var p printer
	for i := range c.Methods {
		if m := &c.Methods[i]; !m.Unimplemented {
			m.emit(&p)
		}
	}
	return p.String()
}

func (m *method) emit(p *printer) {
	name := m.goName()
	p.line("// %s is %s (%d.%d), sent by %s.", name, m.specName(), m.class.Index, m.Index, m.sender())
	if m.Content {
		p.line("// A content header and the body follow it.")
	}
	if name == "BasicPublish" {
		p.line("// Decode does not copy: both names alias its input.")
	}
	p.line("type %s struct {", name)
	for _, f := range m.Fields {
		if !f.Reserved {
			p.line("%s %s", goName(f.Name), m.variant(f).goType)
		}
	}
	p.line("}\n")
	p.line("// ID returns %sID.\nfunc (*%s) ID() MethodID { return %sID }\n", name, name, name)
	m.emitAppend(p)
	m.emitDecode(p)
}

func (m *method) emitAppend(p *printer) {
	p.line("// Append appends the encoded arguments to b.")
	if len(m.Fields) == 0 {
		p.line("func (*%s) Append(b []byte) []byte { return b }\n", m.goName())
		return
	}
	receiver := "m "
	if m.allReserved() {
		receiver = ""
	}
	p.line("func (%s*%s) Append(b []byte) []byte {", receiver, m.goName())
	for i := 0; i < len(m.Fields); i++ {
		f := m.Fields[i]
		switch k := m.variant(f); {
		case f.Type == "bit":
			group := m.bits(i)
			i += len(group) - 1
			var terms []string
			for n, f := range group {
				if !f.Reserved {
					terms = append(terms, fmt.Sprintf("bit(m.%s, %d)", goName(f.Name), n))
				}
			}
			if len(terms) == 0 {
				terms = []string{"0"}
			}
			p.line("b = append(b, %s)", strings.Join(terms, "|"))
		case f.Reserved:
			p.line("%s // reserved", k.zero)
		default:
			p.line(k.append, "m."+goName(f.Name))
		}
	}
	p.line("return b\n}\n")
}

func (m *method) emitDecode(p *printer) {
	p.line("// Decode sets m from encoded arguments.")
	receiver := "m "
	if m.allReserved() {
		receiver = ""
	}
	p.line("func (%s*%s) Decode(args []byte) error {", receiver, m.goName())
	p.line("c := cursor{b: args}")
	for i := 0; i < len(m.Fields); i++ {
		f := m.Fields[i]
		k := m.variant(f)
		switch {
		case f.Type == "bit":
			group := m.bits(i)
			i += len(group) - 1
			m.emitBits(p, group)
		case f.Reserved && f.Type == "shortstr":
			p.line("c.shortBytes() // reserved")
		case f.Reserved:
			p.line("c.%s() // reserved", k.decode)
		default:
			p.line("m.%s = c.%s()", goName(f.Name), k.decode)
		}
	}
	p.line("return c.finish(%sID, args)\n}\n", m.goName())
}

func (m *method) emitBits(p *printer, group []field) {
	used := false
	for _, f := range group {
		used = used || !f.Reserved
	}
	if !used {
		p.line("c.uint8() // reserved")
		return
	}
	if len(group) == 1 {
		p.line("m.%s = c.uint8()&1 != 0", goName(group[0].Name))
		return
	}
	p.line("bits := c.uint8()")
	for n, f := range group {
		if !f.Reserved {
			p.line("m.%s = bits&%#x != 0", goName(f.Name), 1<<n)
		}
	}
}

// bits returns the run of bit fields that starts at i: they share one octet, least significant bit first.
func (m *method) bits(i int) []field {
	j := i
	for j < len(m.Fields) && m.Fields[j].Type == "bit" && j-i < 8 {
		j++
	}
	return m.Fields[i:j]
}

func (m *method) allReserved() bool {
	for _, f := range m.Fields {
		if !f.Reserved {
			return false
		}
	}
	return true
}

func (m *method) receivedBy(side string) bool {
	for _, c := range m.Chassis {
		if c.Name == side {
			return true
		}
	}
	return false
}

func (m *method) sender() string {
	switch client, server := m.receivedBy("server"), m.receivedBy("client"); {
	case client && server:
		return "either side"
	case client:
		return "the client"
	default:
		return "the server"
	}
}

func (m *method) specName() string { return m.class.Name + "." + m.Name }

func (m *method) goName() string { return goName(m.class.Name) + goName(m.Name) }

// goName turns a name of the specification into an exported identifier.
func goName(s string) string {
	if s == "nowait" { // confirm.select spells it without the hyphen
		s = "no-wait"
	}
	words := strings.Split(s, "-")
	for i, w := range words {
		if w == "id" {
			words[i] = "ID"
			continue
		}
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}
