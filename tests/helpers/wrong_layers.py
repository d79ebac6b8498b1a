"""Loss layers whose exported graph is wrong on purpose, each in one known way."""

from caffe_layers import SigmoidFocalLossLayer, SoftmaxFocalLossLayer, SoftmaxLossLayer


class _OtherGradient:
    """Replaces the gradient that the right layer has defined by ``wrong(op, scores, labels, gradient, loss_diff)``."""

    def onnx(self, op, scores, labels, *more):
        tops = super().onnx(op, scores, labels, *more)
        right = op.defined_gradients.pop()

        def gradient(*diffs):
            return [self.wrong(op, scores, labels, right.rule(*diffs)[0], diffs[0])]

        op.define_gradient(right.tops, right.bottoms, gradient)
        return tops


class FocalWithoutGammaTerm(SigmoidFocalLossLayer):
    """The gradient takes the modulating factor for a constant. Without a divisor."""

    def onnx(self, op, scores, labels):
        tops = super().onnx(op, scores, labels)
        op.defined_gradients.pop()
        p, alpha, gamma = op.Sigmoid(scores), self.params["alpha"], self.params["gamma"]
        weight = op.Add(op.Mul(labels, 2 * alpha - 1), 1 - alpha)
        q = op.Add(op.Mul(p, op.Sub(1, labels)), op.Mul(op.Sub(1, p), labels))

        def gradient(loss_diff):
            return [op.Mul(op.Mul(op.Sub(p, labels), op.Mul(weight, op.Pow(q, gamma))), loss_diff)]

        op.define_gradient(tops, [scores], gradient)
        return tops


class SigmoidDerivativeTwice(_OtherGradient, SigmoidFocalLossLayer):
    """The gradient is multiplied with p (1 - p) once more."""

    def wrong(self, op, scores, labels, gradient, loss_diff):
        p = op.Sigmoid(scores)
        return op.Mul(gradient, op.Mul(p, op.Sub(1, p)))


class FocalByChannel(_OtherGradient, SoftmaxFocalLossLayer):
    """chuanqi305/FocalLoss: alpha weighs every class in the loss, but in the gradient the label's channel alone."""

    def wrong(self, op, scores, labels, gradient, loss_diff):
        alpha = self.params["alpha"]
        channels = op.shape(scores)[1]
        own = op.Equal(op.constant(range(channels), "int64"), op.Unsqueeze(op.cast(labels, "int64"), [1]))
        return op.Mul(gradient, op.Where(own, 1.0, op.constant((1 - alpha) / alpha)))


class GradientOfIgnored(_OtherGradient, SoftmaxLossLayer):
    """The gradient keeps the probabilities of the ignored positions. Without a divisor."""

    def wrong(self, op, scores, labels, gradient, loss_diff):
        ignored = op.Unsqueeze(op.Equal(op.cast(labels, "int64"), self.params["ignore_label"]), [1])
        return op.Add(gradient, op.Mul(op.Where(ignored, op.Softmax(scores, axis=1), 0), loss_diff))


class SoftmaxTwice(SoftmaxLossLayer):
    """The scores go through a softmax before that of the loss."""

    def onnx(self, op, scores, labels):
        return super().onnx(op, op.Softmax(scores, axis=1), labels)


class HardTargets(SigmoidFocalLossLayer):
    """Targets are rounded to 0 and 1."""

    def onnx(self, op, scores, labels):
        return super().onnx(op, scores, op.cast(op.GreaterOrEqual(labels, 0.5), labels))


class IgnoredAsClass0(SoftmaxLossLayer):
    """Ignored labels count as class 0."""

    def onnx(self, op, scores, labels):
        return super().onnx(op, scores, op.Where(op.Equal(labels, float(self.params["ignore_label"])), 0, labels))


class MeanOverClasses(SoftmaxLossLayer):
    """Loss and gradient are divided by the number of classes too."""

    def onnx(self, op, scores, labels):
        (loss,) = super().onnx(op, scores, labels)
        return op.Div(loss, float(op.shape(scores)[1]))


class NegatedGradient(_OtherGradient, SoftmaxLossLayer):
    """The gradient has the other sign."""

    def wrong(self, op, scores, labels, gradient, loss_diff):
        return op.Neg(gradient)
