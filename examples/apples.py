"""Buying fruit (chapter 5): gradients of a price, by two kinds of layers.

Two apples at 100 and three oranges at 150, with 10 % tax.  What does the total depend on, and how
strongly?
"""

from fastbp import AddLayer, MulLayer

apple, apple_num = 100, 2
orange, orange_num = 150, 3
tax = 1.1

apples, oranges, fruit, taxed = MulLayer(), MulLayer(), AddLayer(), MulLayer()

# Forward: from what is bought to what is paid.
apple_price = apples.forward(apple, apple_num)
orange_price = oranges.forward(orange, orange_num)
price = taxed.forward(fruit.forward(apple_price, orange_price), tax)

# Backward: from one unit of the price to each of the things it was made of.
d_fruit_price, d_tax = taxed.backward(1)
d_apple_price, d_orange_price = fruit.backward(d_fruit_price)
d_orange, d_orange_num = oranges.backward(d_orange_price)
d_apple, d_apple_num = apples.backward(d_apple_price)

print(f"price {price:g}")
print(f"one more apple costs {d_apple_num:g}, one more orange {d_orange_num:g}")
print(f"apples dearer by 1: {d_apple:g} more to pay; oranges: {d_orange:g}; tax: {d_tax:g}")
