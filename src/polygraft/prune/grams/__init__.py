"""What every language's text looks like to every matrix, kept: any mask, mixture or objective is scored without reading again."""
