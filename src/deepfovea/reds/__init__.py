"""The published protocol: the data set REDS, cut and scored as in the paper."""
