#!/bin/sh
# words.sh TEXT LETTERS SECONDS OUTPUT
# Writes how often each word of TEXT occurs, the most frequent first. Shorter words than LETTERS are left out.
set -eu
export LC_ALL=C
text=$1 letters=$2 seconds=$3 output=$4
name=$(basename "$text")

if grep -qx "$name" "$DS_PROJECT_DIR/skip.txt"; then
    echo "$name is in skip.txt: nothing to do"
    exit 0
fi

sleep "$seconds"

if ! grep -q "[A-Za-z]" "$text"; then
    echo "$name: no words in it" >&2
    exit 3
fi

tr -cs "A-Za-z'" '\n' < "$text" |
    tr A-Z a-z |
    awk -v letters="$letters" 'length($0) >= letters' |
    sort | uniq -c | sort -k1,1nr -k2 > "$output"

echo "$name: $(wc -l < "$output") different words of $letters letters or more"
