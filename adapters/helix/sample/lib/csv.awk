# Looks into a CSV file whose first line names the columns. Set: mode (columns, get, sum or average), column.

{
    fields = split_line($0, field)
}

NR == 1 {
    for (at = 1; at <= fields; at++) {
        if (mode == "columns")
            print field[at]
        if (field[at] == column)
            wanted = at
    }
    if (mode != "columns" && !wanted) {
        print "csv: there is no column " column
        failed = 1
        exit 1
    }
    next
}

mode == "get" {
    print field[wanted]
}

{
    sum += field[wanted]
}

END {
    if (failed)
        exit 1
    if (mode == "sum")
        print sum + 0
    if (mode == "average")
        print sum / NR
}

# Splits a line into parts[1], parts[2] and so on, and answers how many there are.
function split_line(line, parts) {
    return split(line, parts, ",")
}
