# Turns agent.yaml.example into the entries of agent.yaml(5): a setting's name with its parents, what
# the file gives it, and the comment above it.
#
# A block of comments ends at a setting, which it then describes, or at an empty line: there it may
# hold settings of its own (`# key: value`), which have no default.

function roff(text) {
    gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); gsub(/'/, "\\(aq", text)
    return text
}

function indent(line) { match(line, /^ */); return RLENGTH }

# A line of a description; what is indented within it keeps its line.
function describe(text) {
    words = words (text ~ /^   ? ?/ && words != "" ? ".br\n" : "")
    sub(/^ +/, "", text)
    words = words roff(text) "\n"
}

function entry(depth, text, optional,    at, key, value, comment, name, i) {
    if (text ~ /^- /) { depth += 2; sub(/^- /, "", text) }
    at = index(text, ":")
    key = substr(text, 1, at - 1)
    value = substr(text, at + 2)
    if (match(value, / +# .*$/)) {
        comment = substr(value, RSTART)
        value = substr(value, 1, RSTART - 1)
        sub(/^ +# /, "", comment)
        if (words == "") words = roff(toupper(substr(comment, 1, 1)) substr(comment, 2) ".") "\n"
    }
    while (top > 0 && depths[top] >= depth) top--
    depths[++top] = depth
    keys[top] = key
    for (i = 1; i <= top; i++) name = name (i > 1 ? "." : "") keys[i]
    printf ".TP\n\\fB%s\\fR", roff(name)
    if (value != "") printf optional ? " (for example %s)" : ": %s", roff(value)
    printf "\n%s", words != "" ? words : "As in the example.\n"
    words = ""
    entries++
}

# The comments before a setting describe it.
function before(    i) {
    for (i = 1; i <= held; i++) describe(comments[i])
    held = 0
}

# The comments before an empty line: words, then settings of their own.
function alone(    i, text) {
    for (i = 1; i <= held; i++) {
        text = comments[i]
        if (text ~ /^ +[a-z_]+:( |$)/) {
            entry(places[i] + indent(text) - 1, substr(text, indent(text) + 1), 1)
        } else {
            describe(text)
        }
    }
    held = 0
    words = ""
}

# What stands before the first setting tells of the file, not of a setting.
/^$/ { if (begun++) alone(); else held = 0; next }
!begun { next }
/^ *#/ { held++; places[held] = indent($0); comments[held] = substr($0, indent($0) + 2); next }
{ begun = 1; before(); entry(indent($0), substr($0, indent($0) + 1), 0) }

END {
    alone()
    if (entries < 30) { print "settings.awk: only " entries " settings found" > "/dev/stderr"; exit 1 }
}
