#!/bin/sh
# chart.sh DIR: the results of bench.sh as bars, in SVG: CPU time a request for four kinds of work, each against the
# longest of its kind.
set -eu
dir=$1

for work in small 64KiB 1MiB upload; do
    [ -f "$dir/results/$work/order" ] || continue
    # shellcheck disable=SC2013  # the words are names
    for name in $(cat "$dir/results/$work/order"); do
        echo "$work $name $(awk '{ print $1 }' "$dir/results/$work/$name" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')"
    done
done | awk '
function bar(y, label, us, most, fill) {
    printf "<text x=\"196\" y=\"%d\" text-anchor=\"end\">%s</text>", y + 11, label
    printf "<rect x=\"204\" y=\"%d\" width=\"%.0f\" height=\"14\" fill=\"%s\"/>", y, us / most * 380, fill
    printf "<text x=\"%.0f\" y=\"%d\">%.1f us</text>\n", 210 + us / most * 380, y + 11, us
}
{ work[NR] = $1; name[NR] = $2; us[NR] = $3; if ($3 > most[$1]) most[$1] = $3 }
END {
    title["small"] = "keep-alive, 128 bytes"; title["64KiB"] = "responses of 64 KiB"
    title["1MiB"] = "responses of 1 MiB"; title["upload"] = "uploads of 1 MiB"
    fill["ours"] = "#2f6f4f"; fill["relay"] = "#b5b5b5"
    y = 30
    for (i = 1; i <= NR; i++)
        y += (work[i] != work[i - 1] ? 30 : 0) + 18
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 %d\" width=\"680\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n", y + 10, y + 10
    print "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    print "<text x=\"12\" y=\"22\" font-size=\"14\" font-weight=\"bold\">CPU time of the proxy for a request: less is better</text>"
    y = 30
    for (i = 1; i <= NR; i++) {
        if (work[i] != work[i - 1]) {
            y += 30
            printf "<text x=\"12\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y - 6, title[work[i]]
        }
        bar(y, name[i] == "ours" ? "loadbalancer" : name[i] == "relay" ? "relay (parses nothing)" : name[i], us[i], most[work[i]], name[i] in fill ? fill[name[i]] : "#6f88a8")
        y += 18
    }
    print "</svg>"
}'
