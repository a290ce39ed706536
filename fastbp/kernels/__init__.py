"""Compiled code: raw arrays in, raw arrays out.

Every kernel here takes its arguments in the order *outputs, saved for backward, inputs, sizes and
scalars*; it allocates nothing, checks nothing and raises nothing.  The arrays that reach it have
passed :mod:`fastbp._arrays`, because compiled code looks at no bounds.
"""
