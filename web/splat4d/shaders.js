// The projection of genxd_core/lifting/projection.py on the graphics card, and ellipses as quads.

export const PROJECTED = ["ellipse", "look"]; // what PROJECT puts out, four words each

// Once for each Gaussian: where it is in the picture, in pixels.
export const PROJECT = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp usampler2D;

uniform usampler2D before, after;
uniform sampler2D colours;
uniform float blend;
uniform mat3 rotation;      // world to camera
uniform vec3 translation, eye;
uniform vec4 lens;          // fx, fy, cx, cy in pixels
uniform float skew;
uniform vec2 size;          // of the picture in pixels
uniform int frameRow, colourRow, coefficients;

layout(location = 0) in uint index;
flat out uvec4 ellipse;     // bits of floats: centre, one standard deviation along the longer axis
flat out uvec4 look;        // one along the shorter axis, how many are drawn, colour as halves

const float BLUR = 0.3;     // square pixels
const float ALPHA_MIN = 1.0 / 255.0;
const float NEAR = 0.01;    // scene units

struct Moment { vec3 mean, logScales; vec4 quat; float opacity; };

Moment momentOf(usampler2D frame) {
  int row = int(index) / frameRow;
  int column = 2 * (int(index) - row * frameRow);
  uvec4 one = texelFetch(frame, ivec2(column, row), 0);
  uvec4 two = texelFetch(frame, ivec2(column + 1, row), 0);
  vec2 rest = unpackHalf2x16(one.w);
  vec3 scales = vec3(unpackHalf2x16(two.z), rest.y);
  vec4 quat = vec4(unpackSnorm2x16(two.x), unpackSnorm2x16(two.y));
  return Moment(uintBitsToFloat(one.xyz), scales, quat, rest.x);
}

mat3 rotationOf(vec4 q) {   // wxyz
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

vec3 colourFrom(vec3 d) {
  int row = int(index) / colourRow;
  int column = (int(index) - row * colourRow) * coefficients;
  #define SH(k) texelFetch(colours, ivec2(column + k, row), 0).rgb
  vec3 sum = 0.5 + 0.2820947918 * SH(0);
  if (coefficients > 1) {
    sum += 0.4886025119 * (-d.y * SH(1) + d.z * SH(2) - d.x * SH(3));
  }
  vec3 s = d * d;
  if (coefficients > 4) {
    sum += 1.0925484306 * (d.x * d.y * SH(4) - d.y * d.z * SH(5) - d.x * d.z * SH(7))
      + 0.3153915653 * (2.0 * s.z - s.x - s.y) * SH(6) + 0.5462742153 * (s.x - s.y) * SH(8);
  }
  if (coefficients > 9) {
    sum += -0.5900435899 * (d.y * (3.0 * s.x - s.y) * SH(9) + d.x * (s.x - 3.0 * s.y) * SH(15))
      + 2.8906114426 * d.x * d.y * d.z * SH(10)
      - 0.4570457995 * (4.0 * s.z - s.x - s.y) * (d.y * SH(11) + d.x * SH(13))
      + 0.3731763326 * d.z * (2.0 * s.z - 3.0 * s.x - 3.0 * s.y) * SH(12)
      + 1.4453057213 * d.z * (s.x - s.y) * SH(14);
  }
  return clamp(sum, 0.0, 1.0);
}

void main() {
  gl_Position = vec4(0.0);
  ellipse = look = uvec4(0u); // not drawn
  Moment one = momentOf(before), two = momentOf(after);
  float opacity = mix(one.opacity, two.opacity, blend);
  vec3 mean = mix(one.mean, two.mean, blend);
  vec3 place = rotation * mean + translation;
  if (place.z <= NEAR || opacity < ALPHA_MIN) return;

  vec4 quat = normalize(mix(one.quat, dot(one.quat, two.quat) < 0.0 ? -two.quat : two.quat, blend));
  vec3 scales = exp(mix(one.logScales, two.logScales, blend));
  vec2 slope = place.xy / place.z;
  vec2 centre = vec2(lens.x * slope.x + skew * slope.y, lens.y * slope.y) + lens.zw;
  // Far outside the picture the linear part would grow without limit.
  vec2 low = -lens.zw / lens.xy, high = (size - lens.zw) / lens.xy, margin = 0.15 * size / lens.xy;
  slope = clamp(slope, low - margin, high + margin);
  mat3 axes = rotation * rotationOf(quat);
  axes = mat3(axes[0] * scales.x, axes[1] * scales.y, axes[2] * scales.z);
  vec3 third = vec3(axes[0].z, axes[1].z, axes[2].z);
  vec3 alongY = (vec3(axes[0].y, axes[1].y, axes[2].y) - third * slope.y) / place.z;
  vec3 alongX = (vec3(axes[0].x, axes[1].x, axes[2].x) - third * slope.x) / place.z;
  alongX = lens.x * alongX + skew * alongY;
  alongY *= lens.y;
  float xx = dot(alongX, alongX) + BLUR, yy = dot(alongY, alongY) + BLUR;
  float xy = dot(alongX, alongY);

  // Axes of the ellipse: eigenvectors of the covariance.
  float middle = 0.5 * (xx + yy), spread = length(vec2(0.5 * (xx - yy), xy));
  float longer = middle + spread, shorter = max(middle - spread, BLUR);
  vec2 along = xx >= yy ? vec2(longer - yy, xy) : vec2(xy, longer - xx);
  along = spread > 1e-6 * middle ? normalize(along) : vec2(1.0, 0.0);
  vec3 colour = colourFrom(normalize(mean - eye));
  ellipse = floatBitsToUint(vec4(centre, sqrt(longer) * along));
  look.xy = floatBitsToUint(vec2(sqrt(shorter), sqrt(2.0 * log(opacity / ALPHA_MIN))));
  look.zw = uvec2(packHalf2x16(colour.rg), packHalf2x16(vec2(colour.b, opacity)));
}`;

export const NOTHING = `#version 300 es
precision highp float;
out vec4 shown;
void main() { shown = vec4(0.0); }`;

// A quad of two triangles around each ellipse.
export const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D projected;
uniform int frameRow;
uniform vec2 size;          // of the picture in pixels
layout(location = 0) in uint corner;
out vec2 at;                // in standard deviations along the ellipse's axes
flat out vec4 colour;

void main() {
  int index = gl_VertexID / 6;
  ivec2 place = ivec2(2 * (index % frameRow), index / frameRow);
  uvec4 look = texelFetch(projected, place + ivec2(1, 0), 0);
  vec4 ellipse = uintBitsToFloat(texelFetch(projected, place, 0));
  vec2 shape = uintBitsToFloat(look.xy), along = ellipse.zw;
  at = shape.y * (2.0 * vec2(corner & 1u, corner >> 1) - 1.0);
  vec2 across = length(along) > 0.0 ? shape.x * normalize(vec2(-along.y, along.x)) : vec2(0.0);
  vec2 pixel = ellipse.xy + at.x * along + at.y * across;
  colour = vec4(unpackHalf2x16(look.z), unpackHalf2x16(look.w));
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);
}`;

export const FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
flat in vec4 colour;
out vec4 shown;

void main() {
  float alpha = min(colour.a * exp(-0.5 * dot(at, at)), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  shown = vec4(colour.rgb * alpha, alpha);
}`;
