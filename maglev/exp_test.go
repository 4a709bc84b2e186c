package maglev
import ("testing";"sort";"math";"fmt";"time";dg "github.com/dgryski/go-maglev")
type be struct{n string; w int}
func build(bs []be, m uint64, mode string) ([]int, time.Duration){
  g:=0; max:=0
  for _,b:=range bs{ x,y:=g,b.w; for y!=0{x,y=y,x%y}; g=x; if b.w>max{max=b.w}}
  var names []string; var own []int
  for k:=0;k<max;k++{ for i,b:=range bs{ w:=b.w; if mode!="A"{w/=g}
    if k>=w{continue}
    n:=b.n
    if mode!="B" && k>0 { n=fmt.Sprintf("%s#%d",b.n,k)}
    names=append(names,n); own=append(own,i)}}
  if mode=="C"{ names=nil; own=nil
   type tn struct{i,k int}; var ts []tn
   for i,b:=range bs{for k:=0;k<b.w/g;k++{ts=append(ts,tn{i,k})}}
   sort.SliceStable(ts,func(a,b int)bool{ x,y:=ts[a],ts[b]; l:=(2*x.k+1)*(bs[y.i].w/g); r:=(2*y.k+1)*(bs[x.i].w/g); if l!=r{return l<r}; return x.i<y.i})
   for _,x:=range ts{names=append(names,bs[x.i].n);own=append(own,x.i)}
  }
  t0:=time.Now()
  t:=dg.New(names,m)
  el:=time.Since(t0)
  out:=make([]int,m); for i:=range out{out[i]=own[t.Lookup(uint64(i))]}
  return out,el
}
func cmp(name string, a,b []be, m uint64){
  for _,mode:=range []string{"B","C"}{
   x,tx:=build(a,m,mode); y,ty:=build(b,m,mode)
   mv:=0
   cx:=map[string]int{}; cy:=map[string]int{}
   for i:=range x{ nx,ny:=a[x[i]].n,b[y[i]].n; cx[nx]++;cy[ny]++; if nx!=ny{mv++}}
   dev:=func(bs []be, c map[string]int)float64{ tot:=0;for _,b:=range bs{tot+=b.w}; d:=0.0; for _,b:=range bs{ d=math.Max(d,math.Abs(float64(c[b.n])-float64(m)*float64(b.w)/float64(tot)))};return d}
   fmt.Printf("   maxdev slots %.2f %.2f\n",dev(a,cx),dev(b,cy))
   min:=0
   for n,c:=range cx{ if d:=c-cy[n];d>0{min+=d}}
   fmt.Printf("%-34s M=%d %s moved %.2f%% unavoidable %.2f%% needless %.2f%% %v %v\n",name,m,mode,100*float64(mv)/float64(m),100*float64(min)/float64(m),100*float64(mv-min)/float64(m),tx,ty)
  }
}
func mk(n int,w func(int)int)[]be{ r:=[]be{}; for i:=0;i<n;i++{r=append(r,be{fmt.Sprintf("web%03d",i),w(i)})};return r}
func TestExp(t *testing.T){
 for _,m:=range []uint64{4093,65537,655373}{
 fmt.Println(m)
 sk:=func(i int)int{return 1+i*i%61}
 cmp("100 skewed remove one",mk(100,sk),append(mk(100,sk)[:50],mk(100,sk)[51:]...),m)

 one:=func(int)int{return 1}; ten:=func(int)int{return 10}
 cmp("remove 1 of 100 w1",mk(100,one),append(mk(100,one)[:50],mk(100,one)[51:]...),m)
 cmp("remove 1 of 100 w10",mk(100,ten),append(mk(100,ten)[:50],mk(100,ten)[51:]...),m)
 cmp("100xw10, one to 5",mk(100,ten),mk(100,func(i int)int{if i==50{return 5};return 10}),m)
 cmp("100xw10, one to 9",mk(100,ten),mk(100,func(i int)int{if i==50{return 9};return 10}),m)
 cmp("10xw100, one to 50",mk(10,func(int)int{return 100}),mk(10,func(i int)int{if i==5{return 50};return 100}),m)
 cmp("10xw100, one to 99",mk(10,func(int)int{return 100}),mk(10,func(i int)int{if i==5{return 99};return 100}),m)
 mix:=func(i int)int{return 1+i%7}
 cmp("100 mixed 1-7, remove one",mk(100,mix),append(mk(100,mix)[:50],mk(100,mix)[51:]...),m)
 cmp("2: 1999,2000->1",mk(2,func(i int)int{return 1999+i}),mk(2,func(i int)int{return 1+i*1999}),m)
 cmp("3xw1: one to 2",mk(3,one),mk(3,func(i int)int{if i==1{return 2};return 1}),m)
 cmp("100x1 -> 100x1 + w40",mk(100,one),mk(101,func(i int)int{if i==100{return 40};return 1}),m)
 }
}
