"""Alignment pairs written the long way: one pass over plain lists, for comparison with `tune.translation`."""


def counted(rows: list[tuple[int, str]], english: dict[int, str]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Pairs in order, and why the others were left out. rows: (number of the English question, text in the language)."""
    pairs: list[tuple[str, str]] = []
    lost = {"alone": 0, "empty": 0, "same": 0, "again": 0}
    for number, text in rows:
        if number not in english:
            lost["alone"] += 1
        elif text.strip() == "" or english[number].strip() == "":
            lost["empty"] += 1
        elif text.strip() == english[number].strip():
            lost["same"] += 1
        elif (text.strip(), english[number].strip()) in pairs:
            lost["again"] += 1
        else:
            pairs.append((text.strip(), english[number].strip()))
    return pairs, lost
