# Numbers to roman numerals and back. Set: mode (format or parse), input.

BEGIN {
    split("1000 500 100 50 10 5 1", value, " ")
    count = split("M D C L X V I", letter, " ")
    if (mode == "parse")
        print parse(input)
    else
        print format(input)
}

# The largest letter that still fits, again and again.
function format(number,    at, text) {
    for (at = 1; at <= count; at++)
        while (number >= value[at]) {
            text = text letter[at]
            number -= value[at]
        }
    return text
}

function parse(text,    at, total) {
    for (at = 1; at <= length(text); at++)
        total += worth(substr(text, at, 1))
    return total
}

# What one letter stands for; 0 for any other character.
function worth(character,    at) {
    for (at = 1; at <= count; at++)
        if (letter[at] == character)
            return value[at]
    return 0
}
