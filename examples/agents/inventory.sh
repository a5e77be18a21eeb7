#!/bin/sh
# An agent needs no library: the task comes as JSON on stdin, the result goes as JSON to stdout,
# and an exit code other than 0 is a failure whose reason is the end of stderr.
#
# This one takes stock of all documents of a kind: how many, how long, the commonest long words.
set -eu

folder=$(dirname "$0")/../documents
suffix=$(sed -n 's/.*"suffix" *: *"\([a-z]*\)".*/\1/p')
if [ -z "$suffix" ]; then
    echo "the task's data needs a suffix such as \"md\"" >&2
    exit 1
fi
set -- "$folder"/*."$suffix"
if [ ! -e "$1" ]; then
    echo "there are no .$suffix documents" >&2
    exit 1
fi

LC_ALL=C awk -v documents="$#" '
    { characters += length($0) + 1; words += NF; lines++ }
    {
        text = tolower($0)
        gsub(/[^a-z]+/, " ", text)
        parts = split(text, part, " ")
        for (i = 1; i <= parts; i++) if (length(part[i]) >= 8) times[part[i]]++
    }
    END {
        printf "{\"kind\": \"inventory\", \"documents\": %d, \"lines\": %d, \"words\": %d, \"bytes\": %d, \"common\": {", \
            documents, lines, words, characters
        for (rank = 1; rank <= 5; rank++) {
            best = ""
            for (word in times)
                if (best == "" || times[word] > times[best] || (times[word] == times[best] && word < best)) best = word
            if (best == "") break
            printf "%s\"%s\": %d", (rank > 1 ? ", " : ""), best, times[best]
            delete times[best]
        }
        print "}}"
    }
' "$@"
